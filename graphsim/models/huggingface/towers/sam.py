"""SAM's vision transformer (arXiv 2304.02643) and the convolutions after it: GOT-OCR 2."""

from __future__ import annotations

from graphsim.files.reading import Fields
from graphsim.models.huggingface.common import indices, size, unused
from graphsim.models.huggingface.towers.cuts import Resized
from graphsim.models.huggingface.towers.trunks import Trunk, attention_of, depth, layer_of, patch_side, sides
from graphsim.models.huggingface.towers.whole import Parts, Whole
from graphsim.models.layers.attention import AttentionNames
from graphsim.models.layers.base import Layer
from graphsim.models.layers.block import Block
from graphsim.models.layers.encoder import Encoder, Rows, Section
from graphsim.models.layers.mlp import Mlp, MlpNames
from graphsim.models.layers.norm import NormLayer
from graphsim.models.layers.patches import Convolution, PatchEmbedding, Weights
from graphsim.models.layers.projector import Linear, Projector


def sam(vision: Fields, module: str) -> Trunk:
    """Windows, padded at the border, in most layers; relative positions by row and column; a convolutional neck.

    GEMMs of queries with the relative positions, a twentieth of its flops, are left out.
    """
    width, patch, image = size(vision, "hidden_size"), patch_side(vision), sides(vision)
    unused(vision, "num_pos_feats", "scale")  # of SAM's decoder
    grid = image[0] // patch
    out = size(vision, "output_channels", default=256)
    absolute = vision.flag("use_abs_pos", True)
    embed = PatchEmbedding(
        module="patch_embed.projection", inputs=size(vision, "num_channels", default=3) * patch**2, bias=True,
        positions=grid**2 if absolute else 0, position_name="pos_embed",
    )  # fmt: skip
    whole = indices(vision, "global_attn_indexes")
    window = size(vision, "window_size", default=14)
    layers = tuple(_layer(vision, grid, 0 if i in whole else window) for i in range(depth(vision)))
    return Trunk(
        sections=(
            Section(layers=(embed,), hidden=width, prefix=f"{module}."),
            Section(layers=layers, hidden=width, prefix=f"{module}.layers.{{}}."),
            Section(layers=neck(width), hidden=out, prefix=f"{module}.neck."),
        ),
        width=out,
        patch=patch,
        image=image,
    )


def neck(width: int) -> tuple[Layer, ...]:
    """The neck: convolutions with norms that reduce the layers' width to a few channels."""
    return (
        Convolution(name="conv1", inputs=width, side=1),
        NormLayer(name="layer_norm1", kind="layer"),
        Convolution(name="conv2", inputs=0),
        NormLayer(name="layer_norm2", kind="layer"),
    )


def _layer(vision: Fields, grid: int, window: int) -> Block:
    attention = attention_of(
        vision, bias=vision.flag("qkv_bias", True), out_bias=True, side=window, padded=window > 0,
        names=AttentionNames(fused="attn.qkv", o="attn.proj"),
    )  # fmt: skip
    inner = size(
        vision,
        "mlp_dim",
        default=int(size(vision, "hidden_size") * vision.number("mlp_ratio", 4.0, least=0.01, most=1000.0)),
    )
    mlp = Mlp(intermediate=inner, gated=False, bias=True, names=MlpNames(up="mlp.lin1", down="mlp.lin2"))
    # relative positions by row and column, one vector per distance
    names = ("attn.rel_pos_h", "attn.rel_pos_w")
    table = Weights(names=names, entries=2 * (window or grid) - 1, width=attention.head_dim)
    relative = vision.flag("use_rel_pos", True)
    return layer_of(attention, mlp, ("layer_norm1", "layer_norm2"), scales=(table if relative else None, None))


def got_ocr2(parts: Parts) -> tuple[Encoder, ...]:
    """SAM, two convolutions that reduce rows by a factor of 16, a linear layer (arXiv 2409.01704)."""
    unused(parts.fields, "image_seq_length")
    trunk = sam(parts.nested("vision_config", "got_ocr2_vision"), "model.vision_tower")
    module = "model.multi_modal_projector."
    fourth, sixteenth = Rows(shared=4), Rows(shared=16)
    up = Convolution(name="conv_upsampler1", inputs=trunk.width, stride=4)
    last = Convolution(name="conv_upsampler2", inputs=2 * trunk.width, stride=4)
    project = Projector(linears=(Linear(module="multimodal_projector", n=parts.hidden),))
    sections = (
        *trunk.sections,
        Section(layers=(up,), hidden=2 * trunk.width, rows=fourth, prefix=module),
        Section(layers=(last, project), hidden=parts.hidden, rows=sixteenth, prefix=module),
    )
    return (Encoder(name="vision", cut=Resized(image=trunk.image, patch=trunk.patch), sections=sections),)


WHOLES: dict[str, Whole] = {"got_ocr2": Whole(encoders=got_ocr2), "pp_chart2table": Whole(encoders=got_ocr2)}
"""Readers by `model_type` of the whole model."""
