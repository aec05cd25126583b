"""InternVL's vision transformer: tiles, layer scales after attention and MLP, pixel shuffle into fewer rows."""

from __future__ import annotations

from functools import partial

from graphsim.files.reading import Fields
from graphsim.models.huggingface.common import size, unused
from graphsim.models.huggingface.towers.tiles import Tiles
from graphsim.models.huggingface.towers.trunks import MLP, attention_of, depth, layer_of, patch_side, sides
from graphsim.models.huggingface.towers.whole import Parts, Whole
from graphsim.models.layers.attention import AttentionNames, QkNorm
from graphsim.models.layers.base import Layer
from graphsim.models.layers.encoder import Encoder, Rows, Section
from graphsim.models.layers.idle import Idle, Kept
from graphsim.models.layers.mlp import Mlp
from graphsim.models.layers.norm import NormLayer
from graphsim.models.layers.patches import PatchEmbedding, Take
from graphsim.models.layers.projector import Linear, Projector
from graphsim.models.layers.scale import Scale

_NAMES = AttentionNames(
    q="attention.q_proj", k="attention.k_proj", v="attention.v_proj", o="attention.projection_layer",
    q_norm="attention.q_norm", k_norm="attention.k_norm",
)  # fmt: skip


def internvl(parts: Parts, kind: str, layers: str) -> tuple[Encoder, ...]:
    """InternViT, then a norm and two linear layers on concatenated neighbouring patches (arXiv 2404.16821)."""
    vision = parts.nested("vision_config", kind)
    unused(vision, "layer_scale_init_value")
    unused(parts.fields, "image_seq_length", "vision_feature_layer")
    width, patch, image = size(vision, "hidden_size"), patch_side(vision), sides(vision)
    side = int(1 / parts.fields.number("downsample_ratio", 0.5, least=0.01, most=1.0))
    embed = PatchEmbedding(
        module="patch_embeddings.projection", inputs=size(vision, "num_channels", default=3) * patch**2, bias=True,
        further=1, further_name="cls_token",
        positions=_positions(vision, patch, image), position_name="position_embeddings",
    )  # fmt: skip
    if parts.fields.text("vision_feature_select_strategy", "default") != "default":
        parts.fields.problem("vision_feature_select_strategy", "is not allowed; expected default")
    rows, module = Rows(further=1), "model.vision_tower."
    project = Projector(
        norm=NormLayer(name="layer_norm", kind="layer"),
        linears=(Linear(module="linear_1", n=parts.hidden), Linear(module="linear_2", n=parts.hidden)),
    )
    shared = Rows(shared=side**2)
    sections = (
        Section(layers=(embed,), hidden=width, rows=rows, prefix=f"{module}embeddings."),
        Section(layers=(_layer(vision),) * depth(vision), hidden=width, rows=rows, prefix=f"{module}{layers}.{{}}."),
        *_norm(vision, width, rows),
        Section(layers=(Take(),), hidden=width, prefix=module),
        Section(layers=(project,), hidden=width * side**2, rows=shared, prefix="model.multi_modal_projector."),
    )
    return (Encoder(name="vision", cut=Tiles(tile=image, patch=patch), sections=sections),)


def _positions(vision: Fields, patch: int, image: tuple[int, int]) -> int:
    """Number of learned positions, including that of the class token."""
    if not vision.flag("use_absolute_position_embeddings", True):
        return 0
    return (image[0] // patch) * (image[1] // patch) + 1


def _layer(vision: Fields) -> Layer:
    norm = vision.text("norm_type", "layer_norm", ("layer_norm", "rms_norm"))
    attention = attention_of(
        vision, bias=vision.flag("attention_bias", False), out_bias=True, names=_NAMES,
        qk_norm=QkNorm.FULL if vision.flag("use_qk_norm", False) else QkNorm.NONE,
    )  # fmt: skip
    mlp = Mlp(intermediate=size(vision, "intermediate_size"), gated=False, bias=True, names=MLP)
    scales = (Scale(name="lambda_1"), Scale(name="lambda_2"))
    kind = "rms" if norm == "rms_norm" else "layer"
    return layer_of(attention, mlp, ("layernorm_before", "layernorm_after"), kind, scales)


def _norm(vision: Fields, width: int, rows: Rows) -> tuple[Section, ...]:
    """A norm after the layers, unless mean pooling is set, and the mask token, which only training uses."""
    norm = NormLayer(name="layernorm", kind="layer")
    further: tuple[Section, ...] = (
        () if vision.flag("use_mean_pooling", True) else (Section(layers=(norm,), hidden=width, rows=rows),)
    )
    if vision.flag("use_mask_token", False):
        further += (
            Section(
                layers=(Idle(kept=(Kept(name="mask_token", entries=width),)),),
                hidden=width,
                rows=rows,
                prefix="model.vision_tower.embeddings.",
                idle=True,
            ),
        )
    return further


WHOLES: dict[str, Whole] = {
    "internvl": Whole(encoders=partial(internvl, kind="internvl_vision", layers="encoder.layer")),
    "qianfan_ocr": Whole(encoders=partial(internvl, kind="qianfan_ocr_vision", layers="layers")),
}
"""Readers by `model_type` of the whole model."""
