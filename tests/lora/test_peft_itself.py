"""PEFT itself, on torch's meta device: the same modules, parameters and bytes (`pip install -e '.[peft]'`)."""

from __future__ import annotations

import copy
import importlib.util
import json
from typing import Any

import pytest

import graphsim as gs
from graphsim.models.huggingface import from_config
from tests.paths import DATA, hf_configs

peft = pytest.importorskip("peft")
pytest.importorskip("transformers")

MODELS = hf_configs()
CHOSEN = ["default:llama", "default:gpt2", "default:mixtral", "default:qwen3"]
ADAPTERS: dict[str, dict[str, Any]] = json.loads((DATA / "peft_configs.json").read_text())["adapters"]


def instance(name: str) -> Any:
    spec = importlib.util.spec_from_file_location("make_hf_structure", DATA / "make_hf_structure.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.model_of(MODELS[name])


def parameters_of(wrapped: Any) -> list[str]:
    """Bare parameters that have adapters, one inside the other where a module holds several."""
    return [name.replace(".base_layer", "") for name in wrapped.targeted_parameter_names]


PAIRS = [(model, adapter) for model in CHOSEN for adapter in ADAPTERS]
PAIRS.remove(("default:mixtral", "regex"))  # where experts are stacked, PEFT takes an expression's names to all layers
PAIRS.remove(("default:mixtral", "saved_block"))  # and puts adapters on a router that is trained in full


@pytest.mark.parametrize(("model", "adapter"), PAIRS)
def test_modules_parameters_and_bytes_are_those_of_peft(model: str, adapter: str) -> None:
    config, lora = from_config(MODELS[model], "x"), gs.LoraConfig.from_peft(ADAPTERS[adapter])
    asked = peft.LoraConfig(**copy.deepcopy(ADAPTERS[adapter]))  # PEFT writes into what it is given
    try:
        wrapped = peft.get_peft_model(instance(model), asked, autocast_adapter_dtype=False)
    except ValueError:
        with pytest.raises(gs.ConfigError):
            gs.lora_parameters(config, lora)
        return
    trained = sum(weight.numel() for weight in wrapped.parameters() if weight.requires_grad)
    assert gs.lora_parameters(config, lora) == trained
    assert gs.adapter_footprint(config, lora).bytes.sum() == 2 * trained
    report = gs.match_report(config, lora)
    reached = {*wrapped.targeted_module_names, *(name.removesuffix(".weight") for name in parameters_of(wrapped))}
    names = set(report.module[report.matched])
    assert len(names) == len(reached)
    assert all(any(name == path or name.endswith(f".{path}") for path in reached) for name in names)


METHODS = json.loads((DATA / "peft" / "methods.json").read_text())
OTHERS: dict[str, dict[str, Any]] = {
    "adalora": {"init_r": 7, "total_step": 9}, "loha": {"r": 5}, "lokr": {"r": 3, "decompose_factor": 6},
    "oft": {"oft_block_size": 10}, "ia3": {"feedforward_modules": []}, "randlora": {"r": 6},
    "fourierft": {"n_frequency": 77}, "vblora": {"vector_length": 4, "num_vectors": 33}, "miss": {"r": 9},
    "vera": {"r": 19}, "hra": {"r": 5}, "c3a": {"block_size": 2}, "road": {"group_size": 2}, "shira": {"r": 3},
    "delora": {"r": 3}, "boft": {"boft_block_size": 2},
}  # fmt: skip
"""A field of each method that is not what the facts were counted with."""


@pytest.mark.parametrize("method", OTHERS)
def test_other_methods_train_what_peft_trains(method: str) -> None:
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
    from transformers import AutoConfig, AutoModelForCausalLM

    for name in ("llama", "gemma2", "qwen2"):
        fields = dict(METHODS["models"][name])
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(fields.pop("model_type"), **fields))
        asked = {"target_modules": ["q_proj", "v_proj"]} | OTHERS[method]
        config = PEFT_TYPE_TO_CONFIG_MAPPING[method.upper()](**copy.deepcopy(asked))
        wrapped = peft.get_peft_model(model, config, autocast_adapter_dtype=False)
        trained = sum(weight.numel() for weight in wrapped.parameters() if weight.requires_grad)
        lora = gs.LoraConfig.from_peft({"peft_type": method.upper()} | asked)
        assert gs.lora_parameters(METHODS["models"][name], lora) == trained, name
