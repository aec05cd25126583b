"""PEFT's adapter_config.json: the same modules, ranks and parameters as PEFT's own, and readable errors."""

import csv
import json
import struct
from pathlib import Path
from typing import Any

import pytest

import graphsim as gs
from graphsim.graph import walk
from graphsim.huggingface import from_config
from graphsim.models import build
from graphsim.ops import LoraA
from graphsim.precision import load_precision
from graphsim.workload import prefill

DATA = Path(__file__).parents[1] / "data"
MODELS = json.loads((DATA / "hf_configs.json").read_text())
ADAPTERS = json.loads((DATA / "peft_configs.json").read_text())["adapters"]
FACTS = list(csv.DictReader((DATA / "peft_facts.csv").open()))


@pytest.mark.parametrize("fact", FACTS, ids=lambda fact: f"{fact['model']}-{fact['adapter']}")
def test_parameters_and_wrapped_modules_equal_peft(fact: dict[str, str]) -> None:
    config, lora = from_config(MODELS[fact["model"]], "x"), gs.LoraConfig.from_peft(ADAPTERS[fact["adapter"]])
    if not fact["params"]:
        with pytest.raises(gs.ConfigError, match="matches no module"):
            gs.lora_parameters(config, lora)
        return
    assert gs.lora_parameters(config, lora) == int(fact["params"])
    graph = gs.inject(build(config, prefill(1.0, 1.0), load_precision("bf16")), lora)
    assert sum(times for _, op, times in walk(graph) if isinstance(op, LoraA)) == int(fact["modules"])


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


def test_weights_of_another_rank_than_the_config_says_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(gs.ConfigError, match="rank 16, the config says 8"):
        gs.LoraConfig.from_peft(write_adapter(tmp_path, QV, {KEY: [16, 4096]}))


@pytest.mark.parametrize("content", [b"", b"abc", struct.pack("<Q", 2**60), struct.pack("<Q", 4) + b"[[[["])
def test_a_broken_weights_file_is_one_sentence(tmp_path: Path, content: bytes) -> None:
    folder = write_adapter(tmp_path, QV)
    (folder / "adapter_model.safetensors").write_bytes(content)
    with pytest.raises(gs.ConfigError, match="header"):
        gs.LoraConfig.from_peft(folder)


def test_what_is_not_simulated_or_not_known_is_noted() -> None:
    lora = gs.LoraConfig.from_peft(QV | {"modules_to_save": ["score"], "bias": "all", "brand_new_field": 3})
    assert any("trained in full" in note for note in lora.notes)
    assert any("biases" in note for note in lora.notes)
    assert any("brand_new_field" in note for note in lora.notes)
    assert gs.LoraConfig.from_peft(QV | {"use_rslora": True, "lora_dropout": 0.1}).notes == ()
    assert "brand_new_field" in " ".join(gs.simulate("llama-3.2-1b", "l4", lora=lora).notes)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"r": -1}, "r = -1"),
        ({"r": "eight"}, "r = 'eight'"),
        ({"r": float("nan")}, "r = nan"),
        ({"peft_type": "IA3"}, "peft_type"),
        ({"target_modules": None}, "target_modules is missing"),
        ({"target_modules": [1, 2]}, "target_modules"),
        ({"target_modules": "("}, "regular expression"),
        ({"rank_pattern": [8]}, "rank_pattern"),
        ({"rank_pattern": {"q_proj": "big"}}, "rank_pattern.q_proj"),
        ({"layers_to_transform": [-1]}, "layers_to_transform"),
        ({"layers_to_transform": [1], "target_modules": "q_proj"}, "layers_to_transform"),
        ({"bias": "some"}, "bias"),
        ({"lora_alpha": "x"}, "lora_alpha"),
    ],
)
def test_a_malformed_config_is_one_sentence_that_names_the_field(change: dict[str, Any], said: str) -> None:
    with pytest.raises(gs.ConfigError) as caught:
        gs.lora_parameters("llama-3.2-1b", gs.LoraConfig.from_peft(QV | change))
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_a_folder_without_a_config_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(gs.ConfigError, match=r"adapter_config\.json"):
        gs.LoraConfig.from_peft(tmp_path)
