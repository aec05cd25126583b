"""Later Llama-like models with sliding windows in all layers or by `layer_types`: Ministral, CWM."""

from __future__ import annotations

from graphsim.files.reading import Fields
from graphsim.models.config import ModelConfig
from graphsim.models.huggingface.common import Reader, assemble, pre_norm, read_dims, windows
from graphsim.models.huggingface.llama import attention_of
from graphsim.models.layers.mlp import Mlp


def ministral3(fields: Fields, name: str) -> ModelConfig:
    """All layers have a sliding window if one is given."""
    dims = read_dims(fields)
    slides = windows(fields, dims.layers, lambda i: True)
    mlp = Mlp(intermediate=dims.intermediate)
    return assemble(name, dims, [pre_norm(attention_of(fields, dims, window), mlp) for window in slides])


def cwm(fields: Fields, name: str) -> ModelConfig:
    """Full attention in every fourth layer, windows in the others; no biases (transformers 5.23, `CwmConfig`)."""
    dims = read_dims(fields)
    slides = windows(fields, dims.layers, lambda i: i % 4 != 0)
    mlp = Mlp(intermediate=dims.intermediate, bias=fields.flag("mlp_bias", False))
    return assemble(name, dims, [pre_norm(attention_of(fields, dims, window), mlp) for window in slides])


FAMILIES: dict[str, Reader] = {"ministral": ministral3, "ministral3": ministral3, "cwm": cwm}
"""Readers by `model_type`."""
