"""Towers with 2-D rotary positions and different mergers: MiniMax-M3, Step 3.7, PaddleOCR, ERNIE."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from graphsim.models.huggingface.common import size, unused
from graphsim.models.huggingface.towers.cuts import Native
from graphsim.models.huggingface.towers.qwen import FUSED, NORMS, Frame
from graphsim.models.huggingface.towers.trunks import (
    MLP,
    attention_of,
    depth,
    layer_of,
    patch_side,
    sides,
    siglip_layers,
)
from graphsim.models.huggingface.towers.whole import Parts, Whole
from graphsim.models.layers.encoder import Cut, Encoder, Pieces, Rows, Section
from graphsim.models.layers.mlp import Mlp
from graphsim.models.layers.norm import NormLayer
from graphsim.models.layers.patches import Convolution, PatchEmbedding, Take
from graphsim.models.layers.projector import Linear, Projector
from graphsim.models.layers.scale import Scale
from graphsim.models.media import Media


def minimax_m3(parts: Parts) -> tuple[Encoder, ...]:
    """Two linear layers on each patch, two more on concatenated patches (transformers 5.24, `minimax_m3_vl`)."""
    vision, module = parts.nested("vision_config", "minimax_m3_vl_vision"), "model.vision_tower."
    unused(vision, "image_size")
    unused(parts.fields, "merged_hidden_size")  # follows from the language model's width
    width, patch, merge = size(vision, "hidden_size"), patch_side(vision), size(vision, "spatial_merge_size")
    inner = size(parts.fields, "projector_hidden_size")
    embed = PatchEmbedding(
        module="embeddings.proj",
        inputs=size(vision, "num_channels", default=3) * size(vision, "temporal_patch_size", default=2) * patch**2,
        norm=NormLayer(name="pre_layrnorm", kind="layer"),
    )
    mlp = Mlp(intermediate=size(vision, "intermediate_size"), gated=False, bias=True, names=MLP)
    layer = layer_of(attention_of(vision, rope=True), mlp, ("layer_norm1", "layer_norm2"))
    first, second = (
        Projector(linears=(Linear(module=f"{name}_1", n=inner), Linear(module=f"{name}_2", n=parts.hidden)))
        for name in ("linear", "merge_linear")
    )
    end, merged = "model.multi_modal_projector.", parts.hidden * merge**2
    sections = (
        Section(layers=(embed,), hidden=width, prefix=module),
        Section(layers=(layer,) * depth(vision), hidden=width, prefix=f"{module}layers.{{}}."),
        Section(layers=(first,), hidden=width, prefix=end),
        Section(layers=(second,), hidden=merged, rows=Rows(shared=merge**2), prefix=end),
    )
    # transformers 5.24, `image_processing_minimax_m3_vl.py`
    cut = Native(patch=patch, merge=merge, least=4 * 28 * 28, most=451_584)
    return (Encoder(name="vision", cut=cut, sections=sections),)


@dataclass(frozen=True, slots=True, kw_only=True)
class Windowed(Cut):
    """A view of the whole image, and windows of it if it is large or long; each has the mean size of all pieces.

    transformers 5.24, `image_processing_step3p7.py`.
    whole, window: sides of the view and of a window, pixels
    longest: maximum side of the image, pixels
    """

    patch: int
    whole: int
    window: int = 504
    longest: int = 3024

    def pieces(self, media: Media) -> Pieces:
        """Pieces of all images."""
        windows = self._windows(media.height, media.width)
        view, each = (self.whole // self.patch) ** 2, (self.window // self.patch) ** 2
        mean = (view + windows * each) / (1 + windows)
        return Pieces(count=float(media.images * (1 + windows)), height=1.0, width=mean)

    def _windows(self, height: int, width: int) -> int:
        if min(width, height) < 32 and max(width / height, height / width) > 4:
            width = height = max(width, height)
        if max(height, width) > self.longest:
            scale = self.longest / max(height, width)
            width, height = int(width * scale), int(height * scale)
        short, long = min(height, width), max(height, width)
        side = self.window
        if long <= self.whole:
            side = short if long / short > 1.5 else 0
        elif long / short > 4:
            side = min(short, self.window)
        return math.prod(self._along(length, side) for length in (height, width)) if side else 0

    @staticmethod
    def _along(length: int, side: int) -> int:
        """Number of windows along a side, with one more if over a fifth of a window would remain."""
        return max(length // side + (length % side > 0.2 * side), 1) if length >= side else 1


def step3p7(parts: Parts) -> tuple[Encoder, ...]:
    """Learned positions in addition to rotary ones, learned scales, two convolutions of stride 2, one linear layer."""
    vision, module = parts.nested("vision_config", "step3p5_vision"), "model.vision_model."
    unused(vision, "intermediate_size", "max_position_embeddings", "layer_scale_init_value", "ls_init_value")
    width, patch, (side, _) = size(vision, "width", "hidden_size"), patch_side(vision), sides(vision)
    named = {
        "hidden_size": width,
        "num_attention_heads": size(vision, "heads", "num_attention_heads"),
        "num_hidden_layers": size(vision, "layers", "num_hidden_layers"),
    }
    known = vision.child({**vision.data, **named}, vision.path, lenient=True)
    embed = PatchEmbedding(
        module="embeddings.patch_embedding", inputs=size(vision, "num_channels", default=3) * patch**2,
        positions=(side // patch) ** 2, position_module="embeddings.position_embedding",
        norm=NormLayer(name="pre_layernorm", kind="layer"),
    )  # fmt: skip
    mlp = Mlp(intermediate=int(width * vision.number("mlp_ratio", 8960 / 1536)), gated=False, bias=True, names=MLP)
    layer = layer_of(
        attention_of(known, rope=True), mlp, ("layernorm_before", "layernorm_after"),
        scales=(Scale(name="lambda_1"), Scale(name="lambda_2")),
    )  # fmt: skip
    down = (
        Convolution(name="downsampler1", inputs=width, stride=4, bias=True),
        Convolution(name="downsampler2", inputs=2 * width, stride=4, bias=True),
    )
    linear = Linear(module="multi_modal_projector", n=parts.hidden, bias=parts.fields.flag("projector_bias", False))
    last = Rows(shared=16)
    sections = (
        Section(layers=(embed,), hidden=width, prefix=module),
        Section(layers=(layer,) * depth(known), hidden=width, prefix=f"{module}layers.{{}}."),
        Section(layers=(down[0],), hidden=2 * width, rows=Rows(shared=4), prefix=module),
        Section(layers=(down[1],), hidden=4 * width, rows=last, prefix=module),
        Section(layers=(Projector(linears=(linear,)),), hidden=4 * width, rows=last, prefix="model."),
    )
    return (Encoder(name="vision", cut=Windowed(patch=patch, whole=side), sections=sections),)


def paddleocr(parts: Parts) -> tuple[Encoder, ...]:
    """SigLIP with rotary positions in addition to learned ones; a norm, two linear layers (arXiv 2510.14528)."""
    vision, module = parts.nested("vision_config", "paddleocr_vl_vision"), "model.visual.vision_model"
    unused(vision, "temporal_patch_size", "tokens_per_second")
    width, patch, image = size(vision, "hidden_size"), patch_side(vision), sides(vision)
    merge = size(vision, "spatial_merge_size", default=2)
    embed = PatchEmbedding(
        module="embeddings.patch_embedding", inputs=size(vision, "num_channels", default=3) * patch**2, bias=True,
        positions=(image[0] // patch) ** 2, position_module="embeddings.position_embedding",
    )  # fmt: skip
    merged = width * merge**2
    project = Projector(linears=(Linear(module="linear_1", n=merged), Linear(module="linear_2", n=parts.hidden)))
    sections = (
        Section(layers=(embed,), hidden=width, prefix=f"{module}."),
        *siglip_layers(vision, module, rope=True),
        Section(layers=(NormLayer(name="pre_norm", kind="layer"),), hidden=width, prefix="model.projector."),
        Section(layers=(project,), hidden=merged, rows=Rows(shared=merge**2), prefix="model.projector."),
    )
    # transformers 5.24, `image_processing_paddleocr_vl.py`
    cut = Native(patch=patch, merge=merge, least=384 * 384, most=1536 * 1536)
    return (Encoder(name="vision", cut=cut, sections=sections),)


def ernie(parts: Parts) -> tuple[Encoder, ...]:
    """Qwen2-VL's layers; an MLP on concatenated patches, another on pairs of frames (an image counts as two).

    ERNIE 4.5 technical report, section 2.2; transformers 5.24, `Ernie4_5_VLMoeVariableResolutionResamplerModel`.
    """
    vision, module = parts.nested("vision_config", "ernie4_5_vl_moe_vision"), "model.vision_tower."
    frame = Frame.read(
        vision.child(
            {"temporal_patch_size": 1, "out_hidden_size": parts.hidden, **vision.data}, vision.path, lenient=True
        )
    )
    frames = size(vision, "temporal_merge_size", default=2)
    if frames != 2:
        vision.problem("temporal_merge_size", "is not allowed; expected 2")
    embed = PatchEmbedding(module="patch_embed.proj", inputs=frame.inputs, linear=True)
    attention = replace(attention_of(vision), rope=True, names=FUSED)
    mlp = Mlp(intermediate=size(vision, "intermediate_size"), gated=False, bias=True, names=MLP)
    end, merged = "model.resampler_model.", frame.merged
    space, time = (
        Projector(
            linears=(Linear(module=f"{name}.fc1", n=merged), Linear(module=f"{name}.fc2", n=merged)),
            behind=NormLayer(name=f"{name}.ln", kind="layer", width=merged),
        )
        for name in ("spatial_linear", "temporal_linear")
    )
    project = Projector(
        linears=(Linear(module="mlp", n=parts.hidden),), behind=NormLayer(name="after_norm", width=parts.hidden)
    )
    sections = (
        Section(layers=(embed,), hidden=frame.width, prefix=module),
        Section(layers=(layer_of(attention, mlp, NORMS),) * depth(vision), hidden=frame.width,
                prefix=f"{module}blocks.{{}}."),
        Section(layers=(NormLayer(name="ln", kind="layer"),), hidden=frame.width, prefix=module),
        Section(layers=(space,), hidden=merged, rows=frame.rows, prefix=end),
        Section(layers=(Take(), time), hidden=frames * merged, rows=frame.rows, prefix=end),
        Section(layers=(project,), hidden=merged, rows=frame.rows, prefix=end),
    )  # fmt: skip
    # transformers 5.24, `image_processing_ernie4_5_vl_moe.py`
    return (Encoder(name="vision", cut=frame.cut((56 * 56, 28 * 28 * 6177)), sections=sections),)


WHOLES: dict[str, Whole] = {
    "minimax_m3_vl": Whole(encoders=minimax_m3, either_ties=True),
    "step3p7": Whole(encoders=step3p7),
    "paddleocr_vl": Whole(encoders=paddleocr),
    "ernie4_5_vl_moe": Whole(encoders=ernie),
}
"""Readers by `model_type` of the whole model."""
