"""GLM-4V's vision transformer: a convolution merges neighbouring patches, followed by a gated MLP."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from graphsim.files.reading import Fields
from graphsim.models.huggingface.common import size, unused
from graphsim.models.huggingface.towers.cuts import Native
from graphsim.models.huggingface.towers.qwen import FUSED, NORMS, Frame
from graphsim.models.huggingface.towers.trunks import attention_of, depth, layer_of, sides
from graphsim.models.huggingface.towers.whole import Parts, Whole
from graphsim.models.layers.attention import QkNorm
from graphsim.models.layers.base import Layer
from graphsim.models.layers.encoder import Encoder, Section
from graphsim.models.layers.mlp import Mlp, MlpNames
from graphsim.models.layers.norm import NormLayer
from graphsim.models.layers.patches import Convolution, PatchEmbedding, Positions
from graphsim.models.layers.projector import GatedProjector, Linear, Projector

PIXELS = (12_544, 11_760_000)
"""Minimum and maximum pixels of an image and its second frame (transformers 5.24, `image_processing_glm4v.py`)."""

_MLP = MlpNames(gate="mlp.gate_proj", up="mlp.up_proj", down="mlp.down_proj")


def glm4v(parts: Parts, kind: str) -> tuple[Encoder, ...]:
    """Learned positions in addition to rotary ones (arXiv 2507.01006, section 2)."""
    vision = parts.nested("vision_config", kind)
    frame, bias, (high, wide) = Frame.read(vision), vision.flag("attention_bias", False), sides(vision)
    attention = replace(attention_of(vision, bias=bias, out_bias=False), rope=True, names=FUSED)
    linear = kind != "glm4v_moe_vision"  # PEFT reserves its names for experts, see `conversion.py`
    layer = layer_of(attention, Mlp(intermediate=frame.out, linear=linear, names=_MLP), NORMS, "rms")
    positions = Positions(
        entries=(high // frame.patch) * (wide // frame.patch), module="embeddings.position_embedding",
        norm=NormLayer(name="post_conv_layernorm"),
    )  # fmt: skip
    return (_encoder(frame, (positions,), (layer,) * depth(vision), size(vision, "intermediate_size"), linear),)


def glm_ocr(parts: Parts) -> tuple[Encoder, ...]:
    """GLM-OCR, whose merger is as wide as all channels of its output."""
    vision = parts.nested("vision_config", "glm_ocr_vision")
    return (_plain(vision, size(vision, "out_hidden_size") * size(vision, "in_channels", default=3)),)


def glm5_next(parts: Parts) -> tuple[Encoder, ...]:
    """GLM-OCR's tower with a merger of a configured width (transformers 5.24, `glm5_next`)."""
    vision = parts.nested("vision_config", "glm5_next_vision")
    found = _plain(vision, size(vision, "projection_intermediate_size"))
    # 16 to 8000 rows of the language model (`image_processing_glm5_next.py`)
    frame = Frame.read(vision)
    return (replace(found, cut=frame.cut((16 * 28**2, 8_000 * 28**2))),)


def _plain(vision: Fields, inner: int) -> Encoder:
    """A tower without learned positions, with QK norms, and with biases if attention has them."""
    unused(vision, "image_size")
    frame, bias = Frame.read(vision), vision.flag("attention_bias", True)
    attention = replace(attention_of(vision, bias=bias), rope=True, qk_norm=QkNorm.HEAD, names=FUSED)
    mlp = Mlp(intermediate=size(vision, "intermediate_size"), bias=bias, names=_MLP)
    return _encoder(frame, (), (layer_of(attention, mlp, NORMS, "rms"),) * depth(vision), inner)


def _encoder(
    frame: Frame, start: tuple[Layer, ...], layers: tuple[Layer, ...], inner: int, linear: bool = True
) -> Encoder:
    module, rows = "model.visual.", frame.rows
    # if PEFT matches by name only, the convolution has the name of a linear layer
    embed = PatchEmbedding(module="patch_embed.proj", inputs=frame.inputs, bias=True, linear=not linear)
    down = Convolution(name="downsample", inputs=frame.width, side=frame.merge, stride=frame.merge**2, bias=True)
    project = Projector(
        linears=(Linear(module="merger.proj", n=frame.out, bias=False),),
        behind=NormLayer(name="merger.post_projection_norm", kind="layer"),
    )
    gated = GatedProjector(
        gate="merger.gate_proj",
        up="merger.up_proj",
        down="merger.down_proj",
        inner=inner,
        out=frame.out,
        bias=False,
        linear=linear,
    )
    pixels = (PIXELS[0] // 2, PIXELS[1] // 2)  # an image counts as two frames
    return Encoder(
        name="vision",
        cut=Native(patch=frame.patch, merge=frame.merge, least=pixels[0], most=pixels[1]),
        sections=(
            Section(layers=(embed, *start), hidden=frame.width, prefix=module),
            Section(layers=layers, hidden=frame.width, prefix=f"{module}blocks.{{}}."),
            Section(layers=(NormLayer(name="post_layernorm"),), hidden=frame.width, prefix=module),
            Section(layers=(down, project, gated), hidden=frame.out, rows=rows, prefix=module),
        ),
    )


WHOLES: dict[str, Whole] = {
    "glm4v": Whole(encoders=partial(glm4v, kind="glm4v_vision"), either_ties=True),
    "glm46v": Whole(encoders=partial(glm4v, kind="glm4v_vision")),
    "glmga": Whole(encoders=partial(glm4v, kind="glm4v_vision")),
    "glm4v_moe": Whole(encoders=partial(glm4v, kind="glm4v_moe_vision"), either_ties=True),
    "glm_ocr": Whole(encoders=glm_ocr, either_ties=True),
    "glm5_next": Whole(encoders=glm5_next),
}
"""Readers by `model_type` of the whole model."""
