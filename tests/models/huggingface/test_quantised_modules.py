"""Random lists, groups and rules of each method: weights are a sum over modules by the engine's own rule."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from typing import Any

import pytest

import graphsim as gs
from graphsim.graph import walk
from graphsim.models.build import build
from graphsim.models.phase import prefill
from tests.models.huggingface.quantised_checkpoints import (
    BYTES,
    MODELS,
    Choice,
    Weigh,
    alike_experts,
    groups,
    in_compressed_tensors,
    in_transformers_list,
    in_wildcards,
    linears_of,
    some_fronts,
    some_names,
    some_patterns,
    total,
    wide,
)

Case = tuple[dict[str, Any], Choice]
"""A `quantization_config`, and what it makes of each module."""


def weights(config: dict[str, Any]) -> float:
    """Bytes of all weights in the precision that the checkpoint is read to have."""
    model = gs.load_model(config)
    assert model.precision is not None
    graph = build(model, prefill(1.0, 1.0), model.precision)
    return sum(float(op.weight_storage_bytes) * times for _, op, times in walk(graph))


def shuffled(rng: random.Random, *lists: list[str]) -> list[str]:
    entries = [entry for one in lists for entry in one]
    rng.shuffle(entries)
    return entries


def bitsandbytes(rng: random.Random, model: dict[str, Any]) -> Case:
    skipped = shuffled(rng, some_names(rng, model), some_fronts(rng, model), some_patterns(rng, model))
    listed = rng.random() < 0.85
    bits, nested = rng.choice((4, 8)), rng.random() < 0.5
    config: dict[str, Any] = {"quant_method": "bitsandbytes", f"load_in_{bits}bit": True}
    config |= {"bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": nested}
    config |= {"llm_int8_skip_modules": skipped} if listed else {}
    own = BYTES["llm_int8" if bits == 8 else "nf4_dq" if nested else "nf4"]
    entries = skipped if listed else ["lm_head"]
    return config, lambda name: wide if in_transformers_list(name, entries) else own


def fp8(rng: random.Random, model: dict[str, Any]) -> Case:
    skipped = shuffled(rng, some_names(rng, model), some_fronts(rng, model), some_patterns(rng, model))
    blocks, key = rng.random() < 0.5, rng.choice(("modules_to_not_convert", "ignored_layers"))
    config = {"quant_method": "fp8", "weight_block_size": [128, 128] if blocks else None, key: skipped}
    own = BYTES["fp8_block" if blocks else "fp8"]
    return config, lambda name: wide if in_transformers_list(name, skipped) else own


SCHEMES: tuple[tuple[Weigh, dict[str, Any], dict[str, Any] | None], ...] = (
    (groups(4, 128), {"num_bits": 4, "type": "int", "group_size": 128, "strategy": "group"}, None),
    (groups(4, 32, 4), {"num_bits": 4, "type": "int", "group_size": 32, "symmetric": False}, None),
    (groups(8, 128), {"num_bits": 8, "type": "int", "group_size": 128}, None),
    (BYTES["fp8"], {"num_bits": 8, "type": "float", "strategy": "tensor"}, {"num_bits": 8, "type": "float"}),
    (BYTES["fp8_channel"], {"num_bits": 8, "type": "float", "strategy": "channel"}, {"num_bits": 8, "type": "float"}),
    (
        BYTES["fp8_block"],
        {"num_bits": 8, "type": "float", "strategy": "block", "block_structure": [128, 128]},
        {"num_bits": 8, "type": "float"},
    ),
    (BYTES["nvfp4"], {"num_bits": 4, "type": "float", "group_size": 16}, {"num_bits": 4, "type": "float"}),
    (BYTES["mxfp4"], {"num_bits": 4, "type": "float", "group_size": 32, "strategy": "group"}, None),
)
"""Bytes, `weights` and `input_activations` of schemes."""


def compressed_tensors(rng: random.Random, model: dict[str, Any]) -> Case:
    """Exact targets go before patterns, patterns in order of the alphabet, classes last; `ignore` before all."""
    ignored = shuffled(rng, some_names(rng, model), [f"re:{entry}" for entry in some_patterns(rng, model)])
    targets = [["Linear"], [f"re:{entry}" for entry in some_patterns(rng, model)], some_names(rng, model)]
    chosen = rng.sample(SCHEMES, 3)
    listed = {
        f"group_{i}": (scheme, names) for i, (scheme, names) in enumerate(zip(chosen, targets, strict=True)) if names
    }
    config = {
        "quant_method": "compressed-tensors", "format": "mixed-precision", "ignore": ignored,
        "config_groups": {
            name: {"targets": entries, "weights": scheme[1], "input_activations": scheme[2]}
            for name, (scheme, entries) in listed.items()
        },
    }  # fmt: skip
    order = sorted(
        ((entry, scheme[0]) for scheme, entries in listed.values() for entry in entries),
        key=lambda pair: (pair[0] == "Linear", pair[0].startswith("re:"), pair[0]),
    )

    def choice(name: str) -> Weigh:
        if any(in_compressed_tensors(name, entry) for entry in ignored):
            return wide
        return next((own for entry, own in order if in_compressed_tensors(name, entry)), wide)

    return config, choice


def gptq(rng: random.Random, model: dict[str, Any]) -> Case:
    bits, group, sym = rng.choice((2, 3, 4, 8)), rng.choice((-1, 32, 64, 128)), rng.random() < 0.5
    base = groups(bits, group, 0 if sym else bits)
    rules: dict[str, Any] = {}
    choices: list[tuple[str, Weigh]] = []
    for pattern in some_patterns(rng, model):
        sign, own_bits = rng.choice(("-:", "+:", "")), rng.choice((4, 8))
        rules[sign + pattern] = {} if sign == "-:" else {"bits": own_bits}
        choices.append((pattern, wide if sign == "-:" else groups(own_bits, group, 0 if sym else own_bits)))
    head = rng.random() < 0.3
    config = {
        "quant_method": "gptq", "bits": bits, "group_size": group, "sym": sym, "desc_act": False, "lm_head": head,
        "dynamic": rules,
    }  # fmt: skip
    inside = rng.choice(([], [["self_attn.q_proj", "self_attn.o_proj"], ["mlp"]]))
    config |= {"modules_in_block_to_quantize": inside} if inside else {}
    flat = [entry for entries in inside for entry in entries]

    def choice(name: str) -> Weigh:
        found = next((own for pattern, own in choices if re.match(pattern, name)), None)
        if name == "lm_head":
            named = any(own is not wide and re.match(pattern, name) for pattern, own in choices)
            return (found or base) if head else (found or wide) if named else wide
        if flat and not any(entry in name for entry in flat):
            return wide
        return found or base

    return config, choice


def awq(rng: random.Random, model: dict[str, Any]) -> Case:
    skipped = shuffled(
        rng, some_names(rng, model), rng.sample(("k_proj", "self_attn", "down_proj", "visual", "layers.1."), 2)
    )
    group, zeros = rng.choice((32, 64, 128)), rng.random() < 0.7
    config = {
        "quant_method": "awq",
        "bits": 4,
        "group_size": group,
        "zero_point": zeros,
        "modules_to_not_convert": skipped,
    }
    own = groups(4, group, 4 if zeros else 0)
    return config, lambda name: wide if name == "lm_head" or any(entry in name for entry in skipped) else own


ALGORITHMS: dict[str, Weigh] = {
    "FP8": BYTES["fp8"], "FP8_PB_WO": BYTES["fp8_block"], "NVFP4": BYTES["nvfp4"], "W4A16_AWQ": groups(4, 128),
}  # fmt: skip


def modelopt(rng: random.Random, model: dict[str, Any]) -> Case:
    algorithm, own = rng.choice(list(ALGORITHMS.items()))
    last = model["num_hidden_layers"] - 1
    made = ["lm_head", f"*layers.{rng.randint(0, last)}.*", f"model.layers.{rng.randint(0, last)}.self_attn*"]
    made += [f"*{leaf}" for leaf in rng.sample(("q_proj", "o_proj", "down_proj"), 2)]
    made += [f"*layers.[{rng.randint(0, last)}].mlp*"]
    skipped = shuffled(rng, some_names(rng, model), rng.sample(made, rng.randint(0, 3)))
    if rng.random() < 0.5:
        nested = {"quant_algo": algorithm, "exclude_modules": skipped}
        return {
            "quant_method": "modelopt",
            "quantization": nested,
        }, lambda name: wide if in_wildcards(name, skipped) else own
    config = {"quant_method": "modelopt", "quant_algo": algorithm, "ignore": skipped}
    return config, lambda name: wide if in_wildcards(name, skipped) else own


def modelopt_mixed(rng: random.Random, model: dict[str, Any]) -> Case:
    """Each layer's algorithm by its name, experts by one entry for all of a layer or one for each."""
    listed: dict[str, str] = {}
    whole = rng.random() < 0.5
    for m in linears_of(model):
        front = m.name.partition(".experts.")[0]
        name = front + ".experts" if ".experts." in m.name else m.name
        algorithm = listed.get(name) or rng.choice(["", *ALGORITHMS])
        listed[name] = algorithm
    spread = {name: algorithm for name, algorithm in listed.items() if algorithm}
    if not whole:
        spread = {
            m.name: listed[m.name.partition(".experts.")[0] + ".experts"]
            for m in linears_of(model)
            if ".experts." in m.name
        }
        spread |= {name: algorithm for name, algorithm in listed.items() if not name.endswith(".experts")}
        spread = {name: algorithm for name, algorithm in spread.items() if algorithm}
    layers = {name: {"quant_algo": algorithm} for name, algorithm in spread.items()} or {
        "nothing": {"quant_algo": "FP8"}
    }

    def choice(name: str) -> Weigh:
        key = name.partition(".experts.")[0] + ".experts" if ".experts." in name else name
        return ALGORITHMS[listed[key]] if listed[key] else wide

    return {"quant_method": "modelopt", "quant_algo": "MIXED_PRECISION", "quantized_layers": layers}, choice


def auto_round(rng: random.Random, model: dict[str, Any]) -> Case:
    bits, group, sym = rng.choice((2, 4, 8)), rng.choice((32, 128)), rng.random() < 0.5
    base = groups(bits, group, 0 if sym else bits)
    names = some_names(rng, model)
    exact: dict[str, tuple[dict[str, Any], Weigh]] = {}
    for name in names:
        own = rng.choice((4, 8, 16))
        exact[name] = ({"bits": own}, wide if own == 16 else groups(own, group, 0 if sym else own))
    blocks = rng.choice((None, "model.layers", ["model.layers.0", "model.layers.2"]))
    config = {
        "quant_method": "auto-round", "bits": bits, "group_size": group, "sym": sym,
        "block_name_to_quantize": blocks, "extra_config": {name: rule for name, (rule, _) in exact.items()},
    }  # fmt: skip
    fronts = (blocks,) if isinstance(blocks, str) else tuple(blocks or ("model.layers",))

    def choice(name: str) -> Weigh:
        return exact[name][1] if name in exact else base if name.startswith(fronts) else wide

    return config, choice


def quark(rng: random.Random, model: dict[str, Any]) -> Case:
    float8 = {"dtype": "fp8_e4m3", "qscheme": "per_tensor"}
    float4 = {"dtype": "fp4", "qscheme": "per_group", "group_size": 32, "scale_format": "e8m0"}
    integer = {"dtype": "int4", "qscheme": "per_group", "group_size": 128, "symmetric": True}
    kinds = [(float8, BYTES["fp8"]), (float4, BYTES["mxfp4"]), (integer, groups(4, 128))]
    usual, other = rng.sample(kinds, 2)
    schemes = [{"weight": kind, "input_tensors": kind if kind is float8 else None} for kind, _ in (usual, other)]
    wildcard = rng.choice(("*self_attn*", "*down_proj", "*.mlp.*", "*layers.1.*"))
    excluded = shuffled(rng, some_names(rng, model), rng.sample(("lm_head", "re:.*o_proj", "*layers.2.*"), 2))
    config = {
        "quant_method": "quark", "exclude": excluded, "export": {"kv_cache_group": []},
        "global_quant_config": schemes[0], "layer_quant_config": {wildcard: schemes[1]},
    }  # fmt: skip

    def choice(name: str) -> Weigh:
        for entry in excluded:
            if re.match(entry[3:], name) if entry.startswith("re:") else in_wildcards(name, [entry]):
                return wide
        return other[1] if in_wildcards(name, [wildcard]) else usual[1]

    return config, choice


def torchao(rng: random.Random, model: dict[str, Any]) -> Case:
    int4 = {"_type": "Int4WeightOnlyConfig", "_version": 1, "_data": {"group_size": 64}}
    int8 = {"_type": "Int8WeightOnlyConfig", "_version": 1, "_data": {}}
    named = {name: rng.choice((int4, int8, None)) for name in some_names(rng, model) if name != "lm_head"}
    patterns = {f"re:{entry}": rng.choice((int4, int8, None)) for entry in some_patterns(rng, model)}
    usual = rng.choice((int4, int8, None))
    rules = {**named, **patterns, **({"_default": usual} if usual else {})}
    config = {
        "quant_method": "torchao",
        "quant_type": {"default": {"_type": "FqnToConfig", "_version": 1, "_data": {"fqn_to_config": rules}}},
    }
    own = {"Int4WeightOnlyConfig": groups(4, 64, 16), "Int8WeightOnlyConfig": groups(8, -1)}

    def choice(name: str) -> Weigh:
        if name == "lm_head":
            return wide
        by_pattern = next((rule for entry, rule in patterns.items() if re.fullmatch(entry[3:], name)), usual)
        found = named.get(name, by_pattern)
        return own[found["_type"]] if found else wide

    return config, choice


def hqq(rng: random.Random, model: dict[str, Any]) -> Case:
    bits, group = rng.choice((8, 4, 2, 1)), rng.choice((32, 64, 128))
    scheme = {"weight_quant_params": {"nbits": bits, "group_size": group, "axis": 1}}
    tags = [
        "self_attn.q_proj",
        "self_attn.k_proj",
        "self_attn.o_proj",
        "mlp.down_proj",
        "mlp.experts.down_proj",
        "lm_head",
    ]
    skipped = rng.sample(tags, 3)
    config = {"quant_method": "hqq", "quant_config": scheme, "skip_modules": skipped}

    def choice(name: str) -> Weigh:
        tag = ".".join(word for word in name.split(".") if word not in ("model", "layers") and not word.isnumeric())
        return wide if tag in skipped else groups(bits, group, 16)

    return config, choice


METHODS: dict[str, Callable[[random.Random, dict[str, Any]], Case]] = {
    maker.__name__: maker
    for maker in (
        bitsandbytes, fp8, compressed_tensors, gptq, awq, modelopt, modelopt_mixed, auto_round, quark, torchao, hqq
    )
}  # fmt: skip


def judge(method: str, model: str, seed: int) -> None:
    config, choice = METHODS[method](random.Random(seed), MODELS[model])
    data = MODELS[model] | {"quantization_config": config}
    if not alike_experts(data, choice):
        with pytest.raises(gs.ConfigError, match="experts of .* must be alike"):
            gs.load_model(data)
        return
    assert weights(data) == pytest.approx(total(data, choice), rel=1e-3), config


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("method", METHODS)
def test_weights_are_the_sum_over_modules_by_the_methods_own_rule(method: str, model: str) -> None:
    judge(method, model, seed=0)


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("method", METHODS)
def test_weights_of_many_lists_are_the_sum_over_modules(method: str, model: str) -> None:
    """200 lists of each method, dealt out to the models: how a method reads lists does not depend on the model."""
    for seed in range(1000 + list(MODELS).index(model), 1200, len(MODELS)):
        judge(method, model, seed)
