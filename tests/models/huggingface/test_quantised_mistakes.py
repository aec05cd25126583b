"""Whatever stands in a quantization_config, it is read or refused in a sentence: never a traceback."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from typing import Any

import pytest

import graphsim as gs
from graphsim.models.huggingface.quantisation import METHODS
from tests.models.huggingface.quantised_checkpoints import MODELS
from tests.models.huggingface.test_quantised_modules import METHODS as MAKERS

JUNK: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    7,
    10**30,
    0.5,
    "x",
    "re:(",
    "",
    [],
    [7],
    ["re:(", "*["],
    {},
    {"a": 1},
    {"-:(": 7},
)

MINIMAL: dict[str, dict[str, Any]] = {
    "bitsandbytes": {"load_in_4bit": True, "llm_int8_skip_modules": ["lm_head"]},
    "gptq": {"bits": 4, "dynamic": {"-:.*q_proj": {}}, "modules_in_block_to_quantize": [["mlp"]]},
    "awq": {"bits": 4, "modules_to_not_convert": ["k_proj"]},
    "fp8": {"weight_block_size": [128, 128], "modules_to_not_convert": ["k_proj"]},
    "mxfp4": {"modules_to_not_convert": ["k_proj"]},
    "modelopt": {"quant_algo": "FP8", "ignore": ["lm_head"], "kv_cache_scheme": {"num_bits": 8, "type": "float"}},
    "quark": {"global_quant_config": {"weight": {"dtype": "int8"}, "input_tensors": {}}, "exclude": [], "export": {},
              "layer_quant_config": {}, "layer_type_quant_config": {}, "kv_cache_quant_config": {"a": {}}},
    "torchao": {"quant_type": {"default": {"_type": "Int4WeightOnlyConfig", "_data": {"group_size": 32}}}},
    "hqq": {"quant_config": {"self_attn.q_proj": {"weight_quant_params": {"nbits": 4}}}, "skip_modules": ["lm_head"]},
    "compressed-tensors": {"kv_cache_scheme": {"num_bits": 8, "type": "float"}, "sparsity_config": {"format": "dense"},
                           "config_groups": {"a": {"weights": {"num_bits": 8, "type": "float", "strategy": "block",
                                                               "block_structure": [128, 128]}}}},
    "auto-round": {"bits": 4, "data_type": "int", "extra_config": {"lm_head": {"bits": 8, "data_type": "mx_fp"}}},
    "higgs": {"bits": 4, "group_size": 256}, "quanto": {"weights": "int4"},
}  # fmt: skip


def paths(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place within nested mappings and lists, the value itself first."""
    yield at
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from paths(inner, (*at, key))


def changed(config: dict[str, Any], at: tuple[Any, ...], junk: Any) -> Any:
    found = copy.deepcopy(config)
    if not at:
        return junk
    inner = found
    for key in at[:-1]:
        inner = inner[key]
    inner[at[-1]] = junk
    return found


def judge(config: dict[str, Any], at: tuple[Any, ...], junk: Any) -> None:
    data = MODELS["dense"] | {"num_hidden_layers": 1, "quantization_config": changed(config, at, junk)}
    try:
        gs.load_model(data)
    except gs.ConfigError as error:
        assert "quantization_config" in str(error) and "\n" not in str(error)


def minimal(method: str) -> dict[str, Any]:
    return {"quant_method": method} | MINIMAL.get(method, {})


@pytest.mark.parametrize("method", METHODS)
def test_a_wrong_value_of_a_method_is_a_sentence(method: str) -> None:
    rng = random.Random(method)
    for at in paths(minimal(method)):
        for junk in rng.sample(JUNK, 2):
            judge(minimal(method), at, junk)


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_every_wrong_value_of_a_method_is_a_sentence(method: str) -> None:
    for at in paths(minimal(method)):
        for junk in JUNK:
            judge(minimal(method), at, junk)


@pytest.mark.slow
@pytest.mark.parametrize("maker", MAKERS)
def test_every_wrong_value_of_a_methods_lists_is_a_sentence(maker: str) -> None:
    config = MAKERS[maker](random.Random(3), MODELS["dense"])[0]
    for at in list(paths(config))[:60]:
        for junk in JUNK:
            judge(config, at, junk)
