"""PEFT's adapter_config.json: the same modules, ranks and parameters as PEFT's own, and readable errors."""

import csv
import json
import struct
from pathlib import Path
from typing import Any

import pytest

import graphsim as gs
from graphsim.graph import walk
from graphsim.models.build import build
from graphsim.models.huggingface import from_config
from graphsim.models.phase import prefill
from graphsim.ops import LoraA
from graphsim.ops.lora_kernels import LoraLookup
from graphsim.ops.precision import load_precision
from tests.paths import DATA, hf_configs

MODELS = hf_configs()
ADAPTERS = json.loads((DATA / "peft_configs.json").read_text())["adapters"]
DIFFERENT = (("default:mixtral", "regex"), ("default:mixtral", "saved_block"))
"""What PEFT does by accident: see test_peft_itself.py."""
FACTS = [
    fact
    for fact in csv.DictReader((DATA / "peft_facts.csv").open())
    if (fact["model"], fact["adapter"]) not in DIFFERENT
]


@pytest.mark.parametrize("fact", FACTS, ids=lambda fact: f"{fact['model']}-{fact['adapter']}")
def test_parameters_and_wrapped_modules_equal_peft(fact: dict[str, str]) -> None:
    config, lora = from_config(MODELS[fact["model"]], "x"), gs.LoraConfig.from_peft(ADAPTERS[fact["adapter"]])
    if not fact["params"]:
        with pytest.raises(gs.ConfigError, match="matches no module|in neither of them"):
            gs.lora_parameters(config, lora)
        return
    assert gs.lora_parameters(config, lora) == int(fact["params"])
    graph = gs.inject(build(config, prefill(1.0, 1.0), load_precision("bf16")), lora)
    firsts = sum(times for _, op, times in walk(graph) if isinstance(op, LoraA | LoraLookup))
    assert firsts == int(fact["modules"])


def write_adapter(folder: Path, config: dict[str, Any], tensors: dict[str, list[int]] | None = None) -> Path:
    (folder / "adapter_config.json").write_text(json.dumps(config))
    if tensors is not None:
        header = {key: {"dtype": "F32", "shape": shape, "data_offsets": [0, 0]} for key, shape in tensors.items()}
        text = json.dumps(header).encode()
        (folder / "adapter_model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text)
    return folder


QV = {"peft_type": "LORA", "r": 8, "target_modules": ["q_proj", "v_proj"]}
KEY = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"


def test_an_adapter_folder_is_read_and_its_weights_header_agrees(tmp_path: Path) -> None:
    lora = gs.LoraConfig.from_peft(write_adapter(tmp_path, QV, {KEY: [8, 4096]}))
    assert lora.rank == 8 and lora.target_modules == ("q_proj", "v_proj")


KEY_B = KEY.replace("lora_A", "lora_B")


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        ({KEY: [8, 64], KEY_B: [64, 4]}, "lora_B.weight' has rank 4, the config says 8"),
        ({KEY.replace("q_proj", "o_proj"): [8, 64]}, "target_modules do not name"),
        ({KEY: [8]}, "expected two dimensions"),
        ({KEY: [8, -1]}, "expected whole numbers"),
    ],
)
def test_weights_that_are_not_the_configs_are_one_sentence(
    tmp_path: Path, tensors: dict[str, list[int]], said: str
) -> None:
    with pytest.raises(gs.ConfigError, match=said):
        gs.LoraConfig.from_peft(write_adapter(tmp_path, QV, tensors))


def test_the_format_of_the_weights_is_checked_and_a_wide_one_is_noted(tmp_path: Path) -> None:
    assert "F32" in " ".join(gs.LoraConfig.from_peft(write_adapter(tmp_path, QV, {KEY: [8, 4096]})).notes)
    file = tmp_path / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes().replace(b'"F32"', b'"I32"'))
    with pytest.raises(gs.ConfigError, match="has dtype 'I32', allowed: BF16"):
        gs.LoraConfig.from_peft(tmp_path)


def test_parts_of_a_stack_of_experts_are_named_together() -> None:
    for model, names in (("qwen3-30b-a3b", ("gate_proj", "up_proj")), ("mixtral-8x7b", ("w1", "w3"))):
        both = gs.match_report(model, gs.LoraConfig.from_peft(QV | {"target_modules": list(names)}))
        assert set(both[both.matched]["rank"]) == {16}
        with pytest.raises(gs.ConfigError, match=f"'{names[1]}' of the experts is one weight with '{names[0]}'"):
            gs.lora_parameters(model, gs.LoraConfig.from_peft(QV | {"target_modules": [names[1]]}))


@pytest.mark.parametrize("engine", gs.list_engines())
@pytest.mark.parametrize("tp", [1, 2])
def test_an_adapter_on_the_embedding_looks_up_widens_and_adds(engine: str, tp: int) -> None:
    lora = gs.LoraConfig.from_peft(QV | {"target_modules": ["q_proj", "embed_tokens", "lm_head"]})
    graph = gs.build_graph("llama-3.1-8b", "decode", 4, lora=lora, engine=engine, parallelism=gs.Parallelism(tp=tp))
    gs.validate(graph)
    assert sum("embed" in name and name.endswith((".lora_a", ".lora_lookup")) for name in graph) >= 1
    assert gs.simulate("llama-3.1-8b", "h100-sxm", lora=lora, engine=engine).latency_s > 0


def test_weights_of_another_rank_than_the_config_says_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(gs.ConfigError, match="rank 16, the config says 8"):
        gs.LoraConfig.from_peft(write_adapter(tmp_path, QV, {KEY: [16, 4096]}))


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "the file is empty"),
        (b"abc", "header"),
        (struct.pack("<Q", 2**60), "header"),
        (struct.pack("<Q", 4) + b"[[[[", "header"),
    ],
)
def test_a_broken_weights_file_is_one_sentence(tmp_path: Path, content: bytes, told: str) -> None:
    folder = write_adapter(tmp_path, QV)
    (folder / "adapter_model.safetensors").write_bytes(content)
    with pytest.raises(gs.ConfigError, match=told):
        gs.LoraConfig.from_peft(folder)


def test_what_is_not_known_is_noted() -> None:
    lora = gs.LoraConfig.from_peft(QV | {"modules_to_save": ["score"], "bias": "all", "brand_new_field": 3})
    assert lora.modules_to_save == ("score",) and lora.trained_biases == "all"
    assert lora.notes == ("unknown field of the adapter's config: brand_new_field",)
    assert gs.LoraConfig.from_peft(QV | {"use_rslora": True, "lora_dropout": 0.1}).notes == ()
    assert "brand_new_field" in " ".join(gs.simulate("llama-3.2-1b", "l4", lora=lora, engine="reference").notes)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"r": -1}, "r = -1"),
        ({"r": "eight"}, "r = 'eight'"),
        ({"r": float("nan")}, "r = nan"),
        ({"peft_type": "XLORA"}, "peft_type = 'XLORA' is not simulated, since it mixes several adapters"),
        ({"peft_type": "WAVEFT"}, "peft_type = 'WAVEFT' is not simulated; supported: ADALORA, BOFT, C3A"),
        ({"peft_type": "LORRA"}, "peft_type = 'LORRA' is not a method of PEFT 0.21; did you mean 'LORA'"),
        ({"target_modules": None}, "target_modules = None is not allowed, since the model has no model_type"),
        ({"target_modules": [1, 2]}, "target_modules"),
        ({"target_modules": "("}, "regular expression"),
        ({"rank_pattern": [8]}, "rank_pattern"),
        ({"rank_pattern": {"q_proj": "big"}}, "rank_pattern.q_proj"),
        ({"layers_to_transform": [-1]}, "layers_to_transform"),
        ({"layers_to_transform": [1], "target_modules": "q_proj"}, "layers_to_transform"),
        ({"bias": "some"}, "bias"),
        ({"lora_alpha": "x"}, "lora_alpha"),
        ({"lora_bias": True, "use_dora": True}, "lora_bias = True is not allowed with use_dora"),
        ({"use_bdlora": "yes"}, "use_bdlora = 'yes'"),
        ({"use_bdlora": {"nblocks": 3}}, "lora.blocks = 3 is not allowed for a lora.rank of 8"),
        ({"r": 5, "use_bdlora": {"nblocks": 5}}, "lora.blocks = 5 is not allowed for 'q_proj' with 2048 outputs"),
        ({"target_parameters": "experts"}, "target_parameters = 'experts' is not allowed; expected a list"),
        ({"modules_to_save": [3]}, "modules_to_save = [3] is not allowed"),
    ],
)
def test_a_malformed_config_is_one_sentence_that_names_the_field(change: dict[str, Any], said: str) -> None:
    with pytest.raises(gs.ConfigError) as caught:
        gs.lora_parameters("llama-3.2-1b", gs.LoraConfig.from_peft(QV | change))
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_a_folder_without_a_config_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(gs.ConfigError, match=r"adapter_config\.json"):
        gs.LoraConfig.from_peft(tmp_path)
