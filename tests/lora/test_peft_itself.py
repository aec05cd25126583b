"""PEFT itself, on torch's meta device: the same modules, parameters and bytes (`pip install graphsim[peft]`)."""

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
    weights = {name: weight for name, weight in wrapped.named_parameters() if "lora_" in name and weight.requires_grad}
    assert gs.lora_parameters(config, lora) == sum(weight.numel() for weight in weights.values())
    held = gs.adapter_footprint(config, lora).bytes.sum()
    assert held == 2 * sum(weight.numel() for weight in weights.values())
    report = gs.match_report(config, lora)
    reached = {*wrapped.targeted_module_names, *(name.removesuffix(".weight") for name in parameters_of(wrapped))}
    names = set(report.module[report.matched])
    assert len(names) == len(reached)
    assert all(any(name == path or name.endswith(f".{path}") for path in reached) for name in names)
