"""Decoders with bidirectional attention by config, such as embedding models and classifiers made from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from graphsim.files.reading import Fields
from graphsim.models.config import ModelConfig
from graphsim.models.layers.attention import SelfAttention
from graphsim.models.layers.base import Layer
from graphsim.models.layers.block import Block, Branch, Part, Residual
from graphsim.models.layers.mlp import Mlp
from graphsim.models.layers.moe import Moe


def seen_both_ways(config: ModelConfig, fields: Fields, data: Mapping[str, Any]) -> ModelConfig:
    """The model with attention as set by `is_causal`: if it is false, attention is bidirectional, without a KV cache.

    A class whose name contains Bidirectional, such as LlamaBidirectionalModel, has the same effect (vLLM,
    `models/config.py`). A window then extends equally to both sides. transformers 5.24 reads `is_causal` in all configs
    (`masking_utils.py`), vLLM 0.33 in those of Llama, Qwen2 and similar models. A class that generates is a problem of
    `fields`.
    """
    whole, named = fields.child(data, "", lenient=True), fields.sequence("architectures")
    said = bool(named) and "Bidirectional" in str(named[0])
    if fields.flag("is_causal", True) and whole.flag("is_causal", True) and not said:
        return config
    if config.generates:
        expected = "true, or a class in architectures that generates nothing, such as Qwen2Model"
        fields.problem("is_causal", f"is not simulated for a class that generates; expected {expected}")
        return config
    layers = [_layer(layer) for layer in config.layers]
    found = [layer for layer in layers if layer is not None]
    if len(found) < len(layers) or config.encoders or config.source_encoder:
        fields.problem("is_causal", "is not simulated where layers are not attention and MLP alone; expected true")
        return config
    return replace(config, layers=tuple(found))


def _layer(layer: Layer) -> Layer | None:
    """The layer with bidirectional attention; None if it has parts not known to support that."""
    if not isinstance(layer, Block):
        return None
    parts = [_part(part) for part in layer.parts]
    found = [part for part in parts if part is not None]
    return Block(parts=tuple(found)) if len(found) == len(parts) else None


def _part(part: Part) -> Part | None:
    if not isinstance(part, Residual):
        return part
    branches = [_branch(branch) for branch in part.branches]
    found = [branch for branch in branches if branch is not None]
    return replace(part, branches=tuple(found)) if len(found) == len(branches) else None


def _branch(branch: Branch) -> Branch | None:
    if isinstance(branch.layer, Mlp | Moe):
        return branch
    if type(branch.layer) is not SelfAttention or branch.layer.loose:
        return None
    return replace(branch, layer=replace(branch.layer, cached=False))
