"""What PEFT's conversion of experts means for a multimodal model: it goes by the `model_type` of the whole.

PEFT 0.21 turns targets that name each expert's weights into parameters of the stacks, and takes these names off all
other modules, where transformers maps the whole's `model_type` to a family of experts (transformers 5.24,
`conversion_mapping.py`, _MODEL_TO_CONVERSION_PATTERN). Elsewhere stacks are no linear layers and stay as they are.
"""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace
from typing import Any

from graphsim.models.config import ModelConfig
from graphsim.models.layers.mlp import Mlp
from graphsim.models.layers.moe import Moe

MAPPED = ("glm4v_moe", "qwen3_omni_moe_thinker")
"""Multimodal kinds whose experts PEFT reaches by such names."""


def converted(config: ModelConfig, kind: str) -> ModelConfig:
    """The language model as PEFT finds it within a whole of that `model_type`."""
    if kind in MAPPED or not any(_converts(layer) for layer in set(config.layers)):
        return config
    plain = {layer: _plain(layer) for layer in set(config.layers)}
    return replace(config, layers=tuple(plain[layer] for layer in config.layers))


def _converts(part: Any) -> bool:
    """Whether experts below are reached as they are where the text model stands by itself."""
    if isinstance(part, Moe):
        return part.adapt_experts
    if isinstance(part, tuple):
        return any(_converts(entry) for entry in part)
    return is_dataclass(part) and any(_converts(getattr(part, field.name)) for field in fields(part))


def _plain(part: Any) -> Any:
    """The same with experts that are not reached, beside MLPs whose linear layers are."""
    if isinstance(part, tuple):
        return tuple(_plain(entry) for entry in part)
    if not is_dataclass(part):
        return part
    changes = {field.name: _plain(getattr(part, field.name)) for field in fields(part)}
    if isinstance(part, Moe):
        changes |= {"adapt_experts": False, "adapt_router": False}
    if isinstance(part, Mlp):
        changes["linear"] = True
    return replace(part, **changes)  # type: ignore[type-var]
