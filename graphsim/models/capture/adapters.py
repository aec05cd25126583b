"""The parameters that PEFT's `all-linear` targets in addition to linear layers.

transformers 5 stores the experts of a layer as three-dimensional parameters where version 4 had linear layers. For
models that it converts as it does Mixtral or Qwen2-MoE, PEFT 0.21 maps the old names to parameters
(`utils/transformers_weight_conversion.py`, _convert_peft_config_moe), and linear layers of these names get no adapter.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

_NAMES: dict[str, dict[str, str]] = {
    "mixtral": {"gate": "gate.weight", "w1": "gate_up_proj", "w3": "gate_up_proj", "w2": "down_proj"},
    "qwen2_moe": {
        "gate": "gate.weight",
        "gate_proj": "gate_up_proj",
        "up_proj": "gate_up_proj",
        "down_proj": "down_proj",
    },
}
"""Old names of expert weights and the parameters that hold them in transformers 5, by model type (PEFT 0.21)."""


@dataclass(frozen=True, slots=True)
class AllLinear:
    """The targets of `all-linear` in a model.

    names: parameter by the old name of the weight; empty for a model that isn't converted
    """

    names: Mapping[str, str] = field(default_factory=dict)

    def has_module(self, path: str) -> bool:
        """Whether the linear layer with this path gets its own pair of LoRA factors."""
        return path.rpartition(".")[2] not in self.names or self.has_parameter(f"{path}.weight")

    def has_parameter(self, path: str) -> bool:
        """Whether the parameter with this path gets a pair of LoRA factors."""
        return any(path == name or path.endswith(f".{name}") for name in self.names.values())

    def fused(self, path: str) -> tuple[str, ...]:
        """Old names of the weights that are fused in a parameter; empty if it gets no LoRA factors."""
        leaf = path.rpartition(".")[2]
        return tuple(old for old, new in self.names.items() if new == leaf) if self.has_parameter(path) else ()


def all_linear(model: Any) -> AllLinear:
    """The targets of `all-linear` in a transformers model."""
    return _of_type(str(getattr(getattr(model, "config", None), "model_type", "")))


@lru_cache
def _of_type(model_type: str) -> AllLinear:
    if not model_type:
        return AllLinear()
    from transformers import conversion_mapping

    if conversion_mapping.get_checkpoint_conversion_mapping(model_type) is None:
        return AllLinear()
    patterns = {**conversion_mapping._MODEL_TO_CONVERSION_PATTERN, "mixtral": "mixtral"}
    return AllLinear(_NAMES.get(patterns.get(model_type, ""), {}))
