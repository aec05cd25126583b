"""Families with norms after their sublayers: Gemma 2 and 3, OLMo 2 and 3, EXAONE 4, GLM-4."""

from __future__ import annotations

from dataclasses import replace

from graphsim.files.reading import Fields
from graphsim.models.config import ModelConfig
from graphsim.models.huggingface.common import (
    Reader,
    assemble,
    read_dims,
    size,
    sliding_pattern,
    unused,
    windows,
    wrapped,
)
from graphsim.models.huggingface.llama import attention_of
from graphsim.models.layers.attention import QkNorm
from graphsim.models.layers.mlp import Mlp, MlpNames

_BEFORE = ("input_layernorm", "pre_feedforward_layernorm")
_BOTH_WAYS = ("Gemma3TextModel", "Gemma3TextForSequenceClassification")
_AFTER = ("post_attention_layernorm", "post_feedforward_layernorm")


def gemma2(fields: Fields, name: str) -> ModelConfig:
    """Norms before and after each sublayer, a sliding window in every other layer."""
    unused(fields, "sliding_window_size")
    dims = read_dims(fields, tied=True)
    mlp = Mlp(intermediate=dims.intermediate)
    slides = windows(fields, dims.layers, lambda i: i % 2 == 0)
    blocks = [wrapped(attention_of(fields, dims, w), mlp, before=_BEFORE, after=_AFTER) for w in slides]
    return assemble(name, dims, blocks)


def gemma3(fields: Fields, name: str) -> ModelConfig:
    """Gemma 2 with QK norm per head, and sliding windows in five of six layers.

    EmbeddingGemma has bidirectional attention, half a window to each side (arXiv 2509.20354; transformers 5.24,
    `configuration_gemma3.py` and `modeling_gemma3.py`).
    """
    both = fields.flag("use_bidirectional_attention", False)
    dims = read_dims(fields, tied=True)
    mlp = Mlp(intermediate=dims.intermediate)
    every = size(fields, "sliding_window_pattern", default=6)
    slides = windows(fields, dims.layers, lambda i: (i + 1) % every != 0)
    if both:
        _check_both_ways(fields, slides)
        slides = [window // 2 for window in slides]
    kinds = [replace(attention_of(fields, dims, window, qk=QkNorm.HEAD), cached=not both) for window in slides]
    return assemble(name, dims, [wrapped(kind, mlp, before=_BEFORE, after=_AFTER) for kind in kinds])


def _check_both_ways(fields: Fields, slides: list[int]) -> None:
    """Note problems with bidirectional attention: a class that generates, or a window without neighbours."""
    given = fields.sequence("architectures")
    if not given or str(given[0]) not in _BOTH_WAYS:
        expected = f"false, or {' or '.join(_BOTH_WAYS)} in architectures"
        fields.problem(
            "use_bidirectional_attention", f"is not simulated for a class that generates; expected {expected}"
        )
    if 1 in slides:
        fields.problem("sliding_window", "is not simulated where attention looks both ways; expected 2 or more")


def olmo2(fields: Fields, name: str) -> ModelConfig:
    """Norms only after sublayers, QK norm over the full projections; OLMo 3 has windows in three of four layers."""
    dims = read_dims(fields)
    mlp = Mlp(intermediate=dims.intermediate)
    third = fields.data.get("model_type") == "olmo3"
    slides = windows(fields, dims.layers, lambda i: third and (i + 1) % 4 != 0)
    blocks = [wrapped(attention_of(fields, dims, w, qk=QkNorm.FULL), mlp, after=_AFTER) for w in slides]
    return assemble(name, dims, blocks)


def exaone4(fields: Fields, name: str) -> ModelConfig:
    """Norms only after sublayers, and QK norm per head; sliding windows, if given, in three of four layers.

    If some layers have a window, the others have no rotary positions.
    """
    dims = read_dims(fields)
    mlp = Mlp(intermediate=dims.intermediate)
    slides = windows(fields, dims.layers, sliding_pattern(fields, dims.layers))
    nope = "sliding_window" in fields
    blocks = [
        wrapped(
            attention_of(fields, dims, w, out_bias=False, qk=QkNorm.HEAD, rope=bool(w) or not nope), mlp, after=_AFTER
        )
        for w in slides
    ]
    return assemble(name, dims, blocks)


def glm4(fields: Fields, name: str) -> ModelConfig:
    """GLM with norms before and after each sublayer."""
    dims = read_dims(fields)
    mlp = Mlp(intermediate=dims.intermediate, names=MlpNames(fused="mlp.gate_up_proj"))
    block = wrapped(
        attention_of(fields, dims, out_bias=False),
        mlp,
        before=("input_layernorm", "post_attention_layernorm"),
        after=("post_self_attn_layernorm", "post_mlp_layernorm"),
    )
    return assemble(name, dims, [block] * dims.layers)


FAMILIES: dict[str, Reader] = {
    "gemma2": gemma2,
    "gemma3_text": gemma3,
    "gemma3": gemma3,
    "olmo2": olmo2,
    "olmo3": olmo2,
    "exaone4": exaone4,
    "exaone4_5_text": exaone4,
    "glm4": glm4,
}
"""Readers by `model_type`."""
