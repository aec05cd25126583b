"""Towers at native resolution with different mergers: Muse-Glimmer, Hy4-VL, LFM3-VL, Nemotron 3 Omni."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from graphsim.models.huggingface.common import MOST_LAYERS, per_layer, size, unused
from graphsim.models.huggingface.towers.cuts import Native
from graphsim.models.huggingface.towers.trunks import MLP, attention_of, depth, layer_of, patch_side
from graphsim.models.huggingface.towers.whole import Parts, Whole
from graphsim.models.layers.attention import AttentionNames, QkNorm
from graphsim.models.layers.base import Projection
from graphsim.models.layers.encoder import Cut, Encoder, Pieces, Rows, Section
from graphsim.models.layers.gated_convolution import GatedConvolution
from graphsim.models.layers.idle import Idle, Kept
from graphsim.models.layers.mlp import Mlp, MlpNames
from graphsim.models.layers.norm import NormLayer
from graphsim.models.layers.patches import Convolution, PatchEmbedding, Take
from graphsim.models.layers.projector import Linear, Projector
from graphsim.models.layers.scale import Scale
from graphsim.models.media import Media

SELF = AttentionNames(**{part: f"self_attn.{part}_proj" for part in "qkvo"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Nearest(Cut):
    """The grid of at most `most` merged patches that is nearest to the image's shape.

    Muse-Glimmer (transformers 5.24, `image_processing_muse_glimmer.py`).
    merge: number of patches along a side of a merged one
    """

    patch: int
    merge: int
    most: int = 4096

    def pieces(self, media: Media) -> Pieces:
        """One piece for each image."""
        side = self.patch * self.merge
        high, wide = media.height / side, media.width / side
        ratio = wide / high
        if high * wide > self.most:
            high = math.sqrt(self.most / ratio)
            wide = high * ratio
        around = [(h, w) for h in {math.floor(high), math.ceil(high)} for w in {math.floor(wide), math.ceil(wide)}]
        fits = [(h, w) for h, w in around if h >= 1 and w >= 1 and h * w <= self.most]
        fits = fits or [(max(1, round(high)), max(1, round(wide)))]
        rows, columns = min(fits, key=lambda grid: abs(grid[0] / grid[1] - media.height / media.width))
        return Pieces(count=float(media.images), height=float(rows * self.merge), width=float(columns * self.merge))


def muse_glimmer(parts: Parts) -> tuple[Encoder, ...]:
    """Windows in three of four layers, norms before the first and after the last; three linear layers and a norm."""
    vision, module = parts.nested("vision_config", "muse_glimmer_vision"), "model.vision_tower."
    unused(vision, "max_position_embeddings")
    width, patch, merge = size(vision, "hidden_size"), patch_side(vision), size(vision, "merge_size", default=2)
    high, wide, layers = size(vision, "pos_emb_height"), size(vision, "pos_emb_width"), depth(vision)
    embed = PatchEmbedding(
        module="patch_embedder.patch_embedding", inputs=size(vision, "patch_temporal", default=2) * 3 * patch**2,
        linear=True, positions=high * wide, position_module="patch_embedder.position_embedding_table",
        norm=NormLayer(name="ln_pre", kind="layer"),
    )  # fmt: skip
    given = [str(kind) for kind in vision.sequence("layer_types", most=MOST_LAYERS)]
    kinds = given or [
        "full_attention" if (i + 1) % 4 == 0 or i == layers - 1 else "window_attention" for i in range(layers)
    ]
    if len(kinds) != layers or set(kinds) - {"full_attention", "window_attention"}:
        vision.problem("layer_types", f"is not allowed; expected full_attention or window_attention {layers} times")
    names = AttentionNames(**{part: f"attn.{part}_proj" for part in "qkv"}, o="attn.proj")
    mlp = Mlp(intermediate=size(vision, "intermediate_size"), gated=False, bias=True, names=MLP)
    blocks = tuple(
        layer_of(
            attention_of(vision, rope=True, names=names, side=high if kind == "window_attention" else 0), mlp,
            ("norm1", "norm2"),
        )
        for kind in kinds
    )  # fmt: skip
    out, inner = width * merge**2, size(parts.fields, "projector_hidden_size", default=4096)
    if size(parts.fields, "out_hidden_size", default=out) != out:
        parts.fields.problem("out_hidden_size", f"is not the width of {merge} x {merge} patches, {out}")
    adapter = Projector(
        linears=(
            Linear(module="vision_adapter.fc1", n=inner, bias=False),
            Linear(module="vision_adapter.fc2", n=inner, bias=False),
            Linear(module="vision_projection", n=parts.hidden, bias=False),
        ),
        behind=NormLayer(name="perception_emb_norm", kind="rms_no_weight", width=parts.hidden),
    )
    sections = (
        Section(layers=(embed,), hidden=width, prefix=module),
        Section(layers=blocks, hidden=width, prefix=f"{module}layers.{{}}."),
        Section(layers=(NormLayer(name="ln_post", kind="layer"),), hidden=width, prefix=module),
        Section(layers=(adapter,), hidden=out, rows=Rows(shared=merge**2), prefix="model."),
    )
    return (Encoder(name="vision", cut=Nearest(patch=patch, merge=merge), sections=sections),)


def hy_v4(parts: Parts) -> tuple[Encoder, ...]:
    """Learned positions; a convolution on patches; a projection to the language model's width; line-end markers."""
    vision, module = parts.nested("vision_config", "hy_v4_vl_vision"), "model.vision_tower."
    unused(vision, "interpolate_mode", "num_key_value_heads")
    width, patch, merge = size(vision, "hidden_size"), patch_side(vision), size(vision, "spatial_merge_size", default=2)
    embed = PatchEmbedding(
        module="embeddings.patch_embedding", inputs=size(vision, "num_channels", default=3) * patch**2, bias=True,
        positions=(size(vision, "max_image_size", default=2048) // patch) ** 2 + 1,
        position_module="embeddings.position_embedding",
    )  # fmt: skip
    mlp = Mlp(intermediate=size(vision, "intermediate_size"), gated=False, bias=True, names=MLP)
    layer = layer_of(attention_of(vision, names=SELF), mlp, ("layer_norm1", "layer_norm2"))
    wide, out, rows = width * merge**2, size(vision, "out_hidden_size", default=parts.hidden), Rows(shared=merge**2)
    end = f"{module}patch_merger."
    down = Convolution(name="proj_conv", inputs=width, side=merge, stride=merge**2, bias=True)
    project = Convolution(name="proj_out", inputs=wide, side=1, bias=True)
    newline = Kept(name="image_newline", entries=out)
    sections = (
        Section(layers=(embed,), hidden=width, prefix=module),
        Section(layers=(layer,) * depth(vision), hidden=width, prefix=f"{module}layers.{{}}."),
        Section(layers=(NormLayer(name="before_rms"),), hidden=width, prefix=end),
        Section(layers=(down,), hidden=wide, rows=rows, prefix=end),
        Section(layers=(project,), hidden=out, rows=rows, prefix=end),
        Section(
            layers=(Idle(kept=(newline,)),), hidden=out, rows=rows, prefix=end, idle=True
        ),  # in addition to the image's rows
    )
    # transformers 5.24, `image_processing_hy_v4_vl.py`
    cut = Native(patch=patch, merge=merge, least=512 * 512, most=2048 * 2048)
    return (Encoder(name="vision", cut=cut, sections=sections),)


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget(Cut):
    """The image's native grid of patches within bounds, with sides that are multiples of `merge`.

    Nemotron 3 Omni (transformers 5.24, `image_processing_nemotron_h_omni.py`).
    least, most: bounds on the number of patches of an image
    """

    patch: int
    merge: int = 2
    least: int = 1024
    most: int = 13_312

    def pieces(self, media: Media) -> Pieces:
        """One piece for each image."""
        high, wide = (round(length / self.patch + 0.5) for length in media.image_size)
        factor = min(math.sqrt(self.most / (high * wide)), 1.0)
        high, wide = math.floor(factor * high), math.floor(factor * wide)
        if high * wide < self.least:
            factor = math.sqrt(self.least / (high * wide))
            high, wide = math.ceil(factor * high), math.ceil(factor * wide)
        high = self._even(high, wide)
        wide = self._even(wide, high)
        return Pieces(count=float(media.images), height=float(high), width=float(wide))

    def _even(self, length: int, other: int) -> int:
        rest = length % self.merge
        if not rest:
            return length
        more = length + self.merge - rest
        return more if more * other <= self.most else max(self.merge, length - rest)


def nemotron_omni(parts: Parts) -> tuple[Encoder, ...]:
    """RADIO (arXiv 2412.07679): class and register tokens, layer scales; two linear layers on concatenated patches."""
    if isinstance(parts.fields.raw("audio_config"), Mapping):
        parts.fields.problem("audio_config", "describes a tower that is not known; expected null")
    vision, module = parts.nested("vision_config", "radio"), "vision_model."
    unused(vision, "image_size", "summary_idxs", "norm_mean", "norm_std", "layerscale_value", "patch_dim")
    unused(parts.fields, "video_pruning_rate", "video_temporal_patch_size", "force_image_size")
    width, patch, channels = size(vision, "hidden_size"), patch_side(vision), size(vision, "num_channels", default=3)
    if vision.flag("use_swiglu_ffn", False):
        vision.problem("use_swiglu_ffn", "is not supported; expected false")
    further = size(vision, "num_cls_tokens", default=3) + size(vision, "num_registers", default=7, least=0)
    embed = PatchEmbedding(
        module="embeddings.patch_projection", inputs=channels * patch**2, linear=True, further=further,
        further_name="embeddings.cls_register_token", position_name="embeddings.position_embedding",
        positions=(size(vision, "max_img_size", default=2048) // patch) ** 2,
    )  # fmt: skip
    frames = size(vision, "video_temporal_patch_size", default=0, least=0)
    videos = Projection(
        name="embeddings.video_patch_projection", n=width, k=max(frames, 1) * channels * patch**2, quantised=False
    )
    unused(vision, "video_patch_dim")
    names = AttentionNames(**{part: f"attention.{part}_proj" for part in "qkvo"})
    attention = attention_of(vision, bias=vision.flag("qkv_bias", True), out_bias=True, names=names)
    mlp = Mlp(intermediate=int(width * vision.number("mlp_ratio", 4.0)), gated=False, bias=True, names=MLP)
    scales = (Scale(name="layer_scale1.lambda1"), Scale(name="layer_scale2.lambda1"))
    layer = layer_of(attention, mlp, ("norm1", "norm2"), scales=scales)
    ratio = parts.fields.number("downsample_ratio", 0.5)
    merge = max(int(1 / ratio), 1) if ratio else 1
    if size(parts.fields, "vision_hidden_size", default=width) != width:
        parts.fields.problem("vision_hidden_size", f"is not the tower's hidden_size = {width}")
    inner = size(parts.fields, "projector_hidden_size", default=4096)
    project = Projector(
        norm=NormLayer(name="layer_norm"),
        linears=(
            Linear(module="linear_1", n=inner, bias=False),
            Linear(module="linear_2", n=parts.hidden, bias=False),
        ),
    )
    text = parts.fields.mapping("text_config", lenient=True)
    drafts = size(text, "num_nextn_predict_layers", default=0, least=0)
    last = (Section(layers=(NormLayer(name="vision_final_layernorm", kind="layer"),), hidden=width),) if drafts else ()
    rows = Rows(further=further)
    sections = (
        Section(layers=(embed,), hidden=width, rows=rows, prefix=module),
        *((Section(layers=(Idle(linears=(videos,)),), hidden=width, prefix=module, idle=True),) if frames else ()),
        Section(layers=(layer,) * depth(vision), hidden=width, rows=rows, prefix=f"{module}encoder.layer.{{}}."),
        Section(layers=(Take(),), hidden=width),
        *last,
        Section(
            layers=(project,), hidden=width * merge**2, rows=Rows(shared=merge**2), prefix="multi_modal_projector."
        ),
    )
    return (Encoder(name="vision", cut=Budget(patch=patch, merge=merge), sections=sections),)


def lfm3(parts: Parts) -> tuple[Encoder, ...]:
    """Gated convolutions and attention layers; a norm on each patch, two linear layers on concatenated patches."""
    vision, module = parts.nested("vision_config", "lfm3_vl_vision"), "model.vision_tower."
    width, patch, merge = size(vision, "hidden_size"), patch_side(vision), size(vision, "spatial_merge_size", default=2)
    frames, layers = size(vision, "temporal_patch_size", default=2), depth(vision)
    embed = PatchEmbedding(
        module="patch_embed", inputs=size(vision, "in_channels", default=3) * frames * patch**2, linear=True,
        norm=NormLayer(name="embedding_norm"),
    )  # fmt: skip
    attention = attention_of(
        vision, bias=False, rope=True, qk_norm=QkNorm.HEAD, kv_heads=size(vision, "num_key_value_heads", default=8)
    )
    side = size(vision, "conv_kernel_size", default=3)
    if side % 2 == 0:
        vision.problem("conv_kernel_size", "is not allowed; expected an odd number, which keeps the grid as large")
    names = MlpNames(gate="feed_forward.w1", up="feed_forward.w3", down="feed_forward.w2")
    mlp, kinds = Mlp(intermediate=size(vision, "intermediate_size"), names=names), ("conv", "full_attention")
    listed = per_layer(vision, "layer_types", layers, kinds, lambda i: kinds[i >= 2 and i % 2 == 0])
    blocks = tuple(
        layer_of(
            GatedConvolution(side=side) if kind == "conv" else attention, mlp, ("operator_norm", "ffn_norm"), "rms"
        )
        for kind in listed
    )
    inner, bias = size(parts.fields, "projector_hidden_size", default=4096), parts.fields.flag("projector_bias", True)
    linears = (Linear(module="linear_1", n=inner, bias=bias), Linear(module="linear_2", n=parts.hidden, bias=bias))
    end = "model.multi_modal_projector."
    sections = (
        Section(layers=(embed,), hidden=width, prefix=module),
        Section(layers=blocks, hidden=width, prefix=f"{module}layers.{{}}."),
        Section(layers=(NormLayer(name="layer_norm", kind="layer"),), hidden=width, prefix=end),
        Section(layers=(Projector(linears=linears),), hidden=width * merge**2, rows=Rows(shared=merge**2), prefix=end),
    )
    # transformers 5.24 uses Qwen2-VL's processor (`image_processing_auto.py`) with these bounds
    cut = Native(patch=patch, merge=merge)
    return (Encoder(name="vision", cut=cut, sections=sections),)


WHOLES: dict[str, Whole] = {
    "muse_glimmer": Whole(encoders=muse_glimmer),
    "hy_v4_vl": Whole(encoders=hy_v4),
    "lfm3_vl": Whole(encoders=lfm3),
    "nemotron_h_omni": Whole(encoders=nemotron_omni, prefix="language_model.", bare=False, adapts_head=True),
}
"""Readers by `model_type` of the whole model."""
