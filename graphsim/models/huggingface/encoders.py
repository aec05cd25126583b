"""Image encoders that transformers instantiates beside a language model, so that their weights are counted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from graphsim.files.reading import Fields
from graphsim.models.huggingface.common import MOST_LAYERS, size
from graphsim.models.layers.encoder import IdleEncoder

Reader = Callable[[Fields, int], IdleEncoder]


def encoder_of(kind: Any, data: Mapping[str, Any], fields: Fields, hidden: int) -> IdleEncoder | None:
    """The encoder of a multimodal `model_type`; None where transformers leaves it out, or it is not known."""
    vision = data.get("vision_config")
    reader = READERS.get(kind) if isinstance(kind, str) else None
    if reader is None or not isinstance(vision, Mapping):
        return None
    return reader(fields.child(vision, "vision_config", lenient=True), hidden)


def gemma4(vision: Fields, hidden: int) -> IdleEncoder:
    """Gemma 4's vision transformer: norms before and behind each part, gated MLPs, two-dimensional positions."""
    width, inner = size(vision, "hidden_size"), size(vision, "intermediate_size")
    heads = size(vision, "num_attention_heads")
    head_dim = size(vision, "head_dim", default=max(width // heads, 1))
    keys = size(vision, "num_key_value_heads", default=heads) * head_dim
    patch = 3 * size(vision, "patch_size") ** 2
    attention = (
        ("self_attn.q_proj.linear", heads * head_dim, width),
        ("self_attn.k_proj.linear", keys, width),
        ("self_attn.v_proj.linear", keys, width),
        ("self_attn.o_proj.linear", width, heads * head_dim),
    )
    mlp = (
        ("mlp.gate_proj.linear", inner, width),
        ("mlp.up_proj.linear", inner, width),
        ("mlp.down_proj.linear", width, inner),
    )
    return IdleEncoder(
        layers=size(vision, "num_hidden_layers", most=MOST_LAYERS),
        module="model.vision_tower.encoder.layers",
        linears=attention + mlp,
        norms=(head_dim, head_dim, width, width, width, width),
        ends=(
            ("model.vision_tower.patch_embedder.input_proj", width, patch),
            ("model.embed_vision.embedding_projection", hidden, width),
        ),
        tables=(2 * size(vision, "position_embedding_size") * width,),
    )


def siglip(vision: Fields, hidden: int) -> IdleEncoder:
    """SigLIP as in Gemma 3: LayerNorm, biases, a convolution for patches, learned positions, a bare projection."""
    width, inner = size(vision, "hidden_size", default=1152), size(vision, "intermediate_size", default=4304)
    patch, image = size(vision, "patch_size", default=14), size(vision, "image_size", default=896)
    positions = (image // patch) ** 2
    projections = tuple((f"self_attn.{part}_proj", width, width) for part in ("k", "v", "q", "out"))
    embedding = 3 * patch**2 * width + width
    return IdleEncoder(
        layers=size(vision, "num_hidden_layers", default=27, most=MOST_LAYERS),
        module="model.vision_tower.encoder.layers",
        linears=(*projections, ("mlp.fc1", inner, width), ("mlp.fc2", width, inner)),
        norms=(width, width),
        norm="layer",
        bias=True,
        tables=(embedding, positions * width, 2 * width, width * hidden + width),
    )


READERS: dict[str, Reader] = {"gemma4": gemma4, "gemma3": siglip}
"""Readers by the `model_type` of the whole model."""
