"""An adapter's tensors meet a model: all that PEFT saves fit, and whatever does not is named by its module."""

from __future__ import annotations

import json
import pickle
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

import graphsim as gs
from tests.paths import DATA

CASES = json.loads((DATA / "peft" / "methods.json").read_text())
SAVED: dict[str, dict[str, list[int]]] = json.loads((DATA / "peft" / "tensors.json").read_text())
MODEL: dict[str, Any] = CASES["models"]["qwen2"]
WIDER = MODEL | {"hidden_size": 120}


def tensors_of(adapter: str) -> dict[str, list[int]]:
    """What PEFT saved, name by name."""
    found = {}
    for name, shape in SAVED[adapter].items():
        stretches = CASES["adapters"][adapter].get("layer_replication", [[0, MODEL["num_hidden_layers"]]])
        layers = range(sum(end - start for start, end in stretches)) if "*" in name else range(1)
        found |= {name.replace("*", str(i)): shape for i in layers}
    return found


def folder_of(path: Path, adapter: str | dict[str, Any], tensors: dict[str, list[int]]) -> Path:
    config = CASES["adapters"][adapter] if isinstance(adapter, str) else adapter
    (path / "adapter_config.json").write_text(json.dumps(config))
    header = {key: {"dtype": "F32", "shape": shape, "data_offsets": [0, 0]} for key, shape in tensors.items()}
    text = json.dumps(header | {"__metadata__": {"format": "pt"}}).encode()
    (path / "adapter_model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text)
    return path


def refusal(folder: Path, model: dict[str, Any] = MODEL) -> str:
    with pytest.raises(gs.ConfigError) as error:
        gs.lora_parameters(model, gs.LoraConfig.from_peft(folder))
    assert "\n" not in str(error.value) and "adapter_model.safetensors" in str(error.value)
    return str(error.value)


def some(adapters: Iterable[str]) -> list[Any]:
    """One in eight as it is, the others slow."""
    return [name if i % 8 == 0 else pytest.param(name, marks=pytest.mark.slow) for i, name in enumerate(adapters)]


@pytest.mark.parametrize("adapter", some(SAVED))
def test_what_peft_saves_fits_the_model_that_it_was_made_for(tmp_path: Path, adapter: str) -> None:
    lora = gs.LoraConfig.from_peft(folder_of(tmp_path, adapter, tensors_of(adapter)))
    assert gs.lora_parameters(MODEL, lora) > 0


ON_LAYERS = [name for name in SAVED if any("*" in key and "layernorm" not in key for key in SAVED[name])]


@pytest.mark.parametrize("adapter", some(ON_LAYERS))
def test_a_tensor_that_is_missing_too_much_or_of_another_shape_is_named(tmp_path: Path, adapter: str) -> None:
    tensors = tensors_of(adapter)
    own = [key for key in tensors if ".layers.1." in key and "layernorm" not in key and "base_layer" not in key]
    beside = ("bias", "randlora_A", "randlora_B")
    name = next(key for key in own if not key.removesuffix(".weight").endswith(beside))
    module = name.removeprefix("base_model.model.").removesuffix(".weight")
    less = {key: shape for key, shape in tensors.items() if key != name}
    assert f"{module} of {tensors[name]} is missing" in refusal(folder_of(tmp_path, adapter, less))
    other = tensors | {name: [*tensors[name][:-1], 977]}
    said = refusal(folder_of(tmp_path, adapter, other))
    assert module in said and ("977" in said or "rank" in said)
    strange = name.replace("layers.1.", "layers.77.")
    said = refusal(folder_of(tmp_path, adapter, tensors | {strange: tensors[name]}))
    assert module.replace("layers.1.", "layers.77.") in said


def test_an_adapter_of_another_model_says_how_many_tensors_differ(tmp_path: Path) -> None:
    said = refusal(folder_of(tmp_path, "lora-default", tensors_of("lora-default")), WIDER)
    assert "does not fit the model: model.layers.0.self_attn.q_proj.lora_A has shape [8, 60], expected [8, 120]" in said
    assert said.count("expected [") == 3 and said.endswith("(and 9 more)")


def test_weights_that_are_pickled_are_never_read(tmp_path: Path) -> None:
    """A pickle runs what it holds, so none is opened; without it the config alone says what the adapter is."""

    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "opened",))

    (tmp_path / "adapter_config.json").write_text(json.dumps({"target_modules": ["q_proj"]}))
    (tmp_path / "adapter_model.bin").write_bytes(pickle.dumps(Trap()))
    with pytest.raises(
        gs.ConfigError, match=r"adapter_model\.bin: is a pickle, .* expected adapter_model\.safetensors"
    ):
        gs.LoraConfig.from_peft(tmp_path)
    assert not (tmp_path / "opened").exists()


def test_an_adapter_that_fits_is_compared_once_and_may_be_changed_afterwards(tmp_path: Path) -> None:
    lora = gs.LoraConfig.from_peft(folder_of(tmp_path, "lora-default", tensors_of("lora-default")))
    deployment = gs.Deployment(MODEL, "l4", lora=lora, engine="reference")
    assert deployment.lora is not None and deployment.lora.tensors is None
    assert (
        gs.simulate(deployment, batch=1, input_tokens=16, output_tokens=4).memory.adapters_bytes
        == gs.lora_parameters(MODEL, lora) * 2
    )


def test_stacks_of_experts_have_factors_of_all_experts_ranks(tmp_path: Path) -> None:
    """PEFT's names for a Mixtral with adapters on everything: one wrapper inside the other, 4 experts, rank 4."""
    stack = "base_model.model.model.layers.{}.mlp.experts"
    shapes = {
        f"{stack}.base_layer.lora_A.weight": [32, 64],
        f"{stack}.base_layer.lora_B.weight": [192, 32],
        f"{stack}.lora_A.weight": [16, 96],
        f"{stack}.lora_B.weight": [64, 16],
    }
    config = {"peft_type": "LORA", "r": 4, "target_modules": ["w1", "w2", "w3"]}
    model = CASES["models"]["mixtral"]
    tensors = {name.format(i): shape for name, shape in shapes.items() for i in range(2)}
    lora = gs.LoraConfig.from_peft(folder_of(tmp_path, config, tensors))
    assert gs.lora_parameters(model, lora) == 2 * (32 * 64 + 192 * 32 + 16 * 96 + 64 * 16)
    said = refusal(folder_of(tmp_path, config, tensors | {f"{stack.format(1)}.lora_A.weight": [8, 96]}), model)
    assert "model.layers.1.mlp.experts has factors of [[8, 96]," in said
