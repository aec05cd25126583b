"""PEFT's conversion of experts in multimodal models, which depends on the whole model's `model_type`.

PEFT 0.21 converts targets that name each expert's weights to parameters of the stacks, and removes these names from all
other modules, if transformers maps the whole model's `model_type` to a family of experts (transformers 5.24,
`conversion_mapping.py`, _MODEL_TO_CONVERSION_PATTERN). Otherwise stacks are not linear layers and get no adapters.
"""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace
from typing import Any

from graphsim.models.config import ModelConfig
from graphsim.models.layers.mlp import Mlp
from graphsim.models.layers.moe import Moe

MAPPED = ("glm4v_moe", "qwen3_omni_moe_thinker")
"""Multimodal model types whose experts PEFT adapts by such names."""


def converted(config: ModelConfig, kind: str) -> ModelConfig:
    """The language model as PEFT adapts it within a multimodal model of that `model_type`."""
    if kind in MAPPED or not any(_converts(layer) for layer in set(config.layers)):
        return config
    plain = {layer: _plain(layer) for layer in set(config.layers)}
    return replace(config, layers=tuple(plain[layer] for layer in config.layers))


def _converts(part: Any) -> bool:
    """Whether a part contains experts that PEFT adapts in the standalone text model."""
    if isinstance(part, Moe):
        return part.adapt_experts
    if isinstance(part, tuple):
        return any(_converts(entry) for entry in part)
    return is_dataclass(part) and any(_converts(getattr(part, field.name)) for field in fields(part))


def _plain(part: Any) -> Any:
    """The part with adapters on the linear layers of MLPs, but not on experts or routers."""
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
