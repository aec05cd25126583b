"""Gemma 4's image tower: norms before and after each sublayer, gated MLPs, 2-D positions, pooled rows."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from graphsim.models.huggingface.common import size, unused, wrapped
from graphsim.models.huggingface.towers.trunks import depth
from graphsim.models.huggingface.towers.whole import Parts, Whole
from graphsim.models.layers.attention import AttentionNames, QkNorm
from graphsim.models.layers.encoder import Cut, Encoder, Pieces, Rows, Section
from graphsim.models.layers.encoder_attention import EncoderAttention
from graphsim.models.layers.mlp import Mlp, MlpNames
from graphsim.models.layers.norm import NormLayer
from graphsim.models.layers.patches import PatchEmbedding, Pooling
from graphsim.models.layers.projector import Linear, Projector
from graphsim.models.media import Media

SOFT_TOKENS = 280
"""Maximum number of rows to which an image is scaled (transformers 5.24, `image_processing_gemma4.py`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget(Cut):
    """Images keep their aspect ratio and are scaled to about `rows` pooled rows, each of `merge` x `merge` patches."""

    patch: int
    merge: int
    rows: int = SOFT_TOKENS

    def pieces(self, media: Media) -> Pieces:
        """One piece for each image."""
        side, (height, width) = self.patch * self.merge, media.image_size
        factor = math.sqrt(self.rows * side**2 / (height * width))
        high, wide = (max(math.floor(factor * length / side), 1) for length in (height, width))
        high, wide = (min(n, self.rows) for n in (high, wide))  # limits very long images to the budget
        return Pieces(count=float(media.images), height=float(high * self.merge), width=float(wide * self.merge))


def gemma4(parts: Parts) -> tuple[Encoder, ...]:
    """The image tower, if the config has one."""
    if isinstance(parts.fields.raw("audio_config"), Mapping):
        parts.fields.problem("audio_config", "describes a tower that is not known; expected null")
    if not isinstance(parts.fields.raw("vision_config"), Mapping):
        return ()
    vision = parts.nested("vision_config", "gemma4_vision")
    unused(vision, "use_clipped_linears", "standardize", "global_head_dim", "default_output_length")
    unused(vision, "max_position_embeddings", "image_seq_length", "video_seq_length")
    tokens = size(parts.fields, "vision_soft_tokens_per_image", default=SOFT_TOKENS)
    width, patch, pool = size(vision, "hidden_size"), size(vision, "patch_size"), size(vision, "pooling_kernel_size")
    heads = size(vision, "num_attention_heads")
    attention = EncoderAttention(
        heads=heads, kv_heads=size(vision, "num_key_value_heads", default=heads), rope=True, qk_norm=QkNorm.HEAD,
        head_dim=size(vision, "head_dim", default=max(width // heads, 1)),
        names=AttentionNames(**{part: f"self_attn.{part}_proj.linear" for part in "qkvo"}),
    )  # fmt: skip
    names = MlpNames(**{part: f"mlp.{part}_proj.linear" for part in ("gate", "up", "down")})
    layer = wrapped(
        attention, Mlp(intermediate=size(vision, "intermediate_size"), names=names),
        before=("input_layernorm", "pre_feedforward_layernorm"),
        after=("post_attention_layernorm", "post_feedforward_layernorm"),
    )  # fmt: skip
    embed = PatchEmbedding(
        module="input_proj",
        inputs=3 * patch**2,
        linear=True,
        positions=2 * size(vision, "position_embedding_size"),
        position_name="position_embedding_table",
    )
    project = Projector(
        norm=NormLayer(name="embedding_pre_projection_norm", kind="rms_no_weight"),
        linears=(Linear(module="embedding_projection", n=parts.hidden, bias=False),),
    )
    tower, pooled = "model.vision_tower.", Rows(shared=pool**2)
    sections = (
        Section(layers=(embed,), hidden=width, prefix=f"{tower}patch_embedder."),
        Section(layers=(layer,) * depth(vision), hidden=width, prefix=f"{tower}encoder.layers.{{}}."),
        Section(layers=(Pooling(shared=pool**2), project), hidden=width, rows=pooled, prefix="model.embed_vision."),
    )
    return (Encoder(name="vision", cut=Budget(patch=patch, merge=pool, rows=tokens), sections=sections),)


def unified(parts: Parts) -> tuple[Encoder, ...]:
    """Gemma 4 whose language model reads patches directly; only supported without images and audio."""
    for key in ("vision_config", "audio_config"):
        if isinstance(parts.fields.raw(key), Mapping):
            parts.fields.problem(key, "describes an embedder that is not known; expected null")
    return ()


WHOLES: dict[str, Whole] = {"gemma4": Whole(encoders=gemma4), "gemma4_unified": Whole(encoders=unified)}
"""Readers by `model_type` of the whole model."""
