"""Phi-4-multimodal (arXiv 2503.01743): SigLIP on crops of an image, a Conformer on audio."""

from __future__ import annotations

import math
from dataclasses import dataclass

from graphsim.files.reading import Fields
from graphsim.models.huggingface.common import MOST_LAYERS, size, unused
from graphsim.models.huggingface.towers.sound import Windows
from graphsim.models.huggingface.towers.tiles import Tiles
from graphsim.models.huggingface.towers.trunks import siglip
from graphsim.models.huggingface.towers.whole import Parts, Whole
from graphsim.models.layers.attention import AttentionNames
from graphsim.models.layers.base import Projection
from graphsim.models.layers.block import Block, Branch, Residual
from graphsim.models.layers.conformer import ConvNames, ConvolutionModule, SubsamplingStem
from graphsim.models.layers.encoder import Cut, Encoder, Pieces, Rows, Section
from graphsim.models.layers.encoder_attention import EncoderAttention
from graphsim.models.layers.idle import Idle, Kept
from graphsim.models.layers.mlp import Mlp, MlpNames
from graphsim.models.layers.norm import NormLayer
from graphsim.models.layers.patches import Pooling
from graphsim.models.layers.projector import Linear, Projector
from graphsim.models.media import Media

_MODULE = "model.embed_tokens_extend."
CROPS, LONGEST_ROWS = 36, 500
"""Maximum crops of an image (`image_processing_phi4_multimodal.py`), and length of audio attention in rows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Crops(Cut):
    """Crops that cover the image at its native size, or a grid of its shape if they are too many; and the whole.

    transformers 5.24, `image_processing_phi4_multimodal.py`; padding rows of a crop count as rows
    """

    grid: Tiles

    def pieces(self, media: Media) -> Pieces:
        """Pieces of all images."""
        high, wide = (math.ceil(length / side) for length, side in zip(media.image_size, self.grid.tile, strict=True))
        found = self.grid.pieces(media)
        crops = high * wide if high * wide <= self.grid.most else found.count / max(media.images, 1)
        return Pieces(count=float(media.images * (crops + 1)), height=found.height, width=found.width)


def phi4(parts: Parts) -> tuple[Encoder, ...]:
    """Both towers, each with two linear layers to the language model's width."""
    return _images(parts), _sound(parts)


def _images(parts: Parts) -> Encoder:
    vision, module = parts.nested("vision_config", "phi4_multimodal_vision"), f"{_MODULE}image_embed."
    unused(vision, "feature_layer", "crop_size")  # all layers have weights, whichever is used
    trunk = siglip(vision, f"{module}img_processor")
    linears = (
        Linear(module="img_projection_up", n=parts.hidden),
        Linear(module="img_projection_down", n=parts.hidden),
    )
    rows, width = Rows(shared=4), trunk.width
    separators = tuple(Kept(name=f"{of}_img_feature_extensor", entries=width) for of in ("global", "sub"))
    sections = (
        *trunk.sections,
        Section(layers=(Pooling(shared=4), Projector(linears=linears)), hidden=width, rows=rows, prefix=module),
        Section(layers=(Idle(kept=separators),), hidden=width, rows=rows, prefix=module, idle=True),
    )
    cut = Crops(grid=Tiles(tile=trunk.image, patch=trunk.patch, most=CROPS, whole=False))
    return Encoder(name="vision", cut=cut, sections=sections)


def _sound(parts: Parts) -> Encoder:
    audio, module = parts.nested("audio_config", "phi4_multimodal_audio"), f"{_MODULE}audio_embed."
    unused(audio, "feature_layer", "chunk_size", "left_chunk", "nemo_final_size", "nemo_activation")
    unused(audio, "activation", "conv_activation", "conv_glu_type")
    width, reduction = size(audio, "hidden_size"), size(audio, "time_reduction", default=8)
    times = int(math.log2(reduction))
    if 2**times != reduction:
        audio.problem("time_reduction", "is not allowed; expected a power of 2")
    if size(audio, "downsample_rate", default=1) != 1:
        audio.problem("downsample_rate", "is not allowed; expected 1")
    stem = SubsamplingStem(
        bands=size(audio, "input_size"), times=times, channels=size(audio, "nemo_conv_channels"), conv="embed.conv",
        out="embed.out",
    )  # fmt: skip
    heads, buckets = size(audio, "num_attention_heads"), size(audio, "bias_max_distance", default=1000)
    distances = buckets * (1 if audio.flag("bias_symmetric", False) else 2)
    biases = Kept(name="relative_attention_bias_layer.bias_values", entries=distances, width=heads)
    encoder = f"{module}encoder."
    speech, with_images = (
        tuple((f"{part}_proj_for_{name}", k) for part, k in (("up", width), ("down", parts.hidden)))
        for name in ("speech", "vision_speech")
    )
    beside = Idle(
        linears=tuple(Projection(name=n, n=parts.hidden, k=k, bias=True, quantised=False) for n, k in with_images)
    )
    project = Projector(linears=tuple(Linear(module=name, n=parts.hidden) for name, _ in speech))
    sections = (
        Section(layers=(stem,), hidden=width, prefix=encoder),
        Section(layers=(_layer(audio, heads),) * size(audio, "num_blocks", most=MOST_LAYERS), hidden=width,
                prefix=f"{encoder}encoders.{{}}."),
        Section(layers=(Idle(kept=(biases,)),), hidden=width, prefix=encoder, idle=True),  # biases added to the mask
        Section(layers=(beside,), hidden=width, prefix=module, idle=True),
        Section(layers=(project,), hidden=width, prefix=module),
    )  # fmt: skip
    rows_s = 100.0 / reduction
    return Encoder(
        name="audio", cut=Windows(window_s=LONGEST_ROWS / rows_s, rows_s=rows_s, whole=False), sections=sections
    )


def _layer(audio: Fields, heads: int) -> Block:
    width, taps = size(audio, "hidden_size"), size(audio, "kernel_size", default=3)
    for key in ("ext_pw_out_channel", "depthwise_separable_out_channel"):
        if size(audio, key, default=width) != width:
            audio.problem(key, f"is not allowed; expected hidden_size = {width}, which the sum asks for")
    if width % heads:
        audio.problem("num_attention_heads", f"does not divide hidden_size = {width}")
    attention = EncoderAttention(
        heads=heads, kv_heads=heads, head_dim=max(width // heads, 1), qkv_bias=True, out_bias=True,
        names=AttentionNames(),
    )  # fmt: skip
    conv = ConvolutionModule(
        inner=width, taps=taps, times=size(audio, "depthwise_multiplier", default=1), learned=True,
        names=ConvNames(
            up="conv.glu.ext_pw_conv_1d", point="conv.dw_sep_conv_1d.pw_conv", down="conv.ext_pw_conv_1d"
        ),
    )  # fmt: skip
    inner = size(audio, "intermediate_size")
    first, last = (
        Mlp(intermediate=inner, bias=True, names=MlpNames(fused=f"{m}.gate_up_proj", down=f"{m}.down_proj"))
        for m in ("feed_forward_in", "feed_forward_out")
    )
    parts = (
        ("in_residual", first, "feed_forward_in.layer_norm"), ("attn_residual", attention, "layer_norm_att"),
        ("conv_residual", conv, "conv.layer_norm"), ("out_residual", last, "feed_forward_out.layer_norm"),
    )  # fmt: skip
    residuals = [
        Residual(name=name, norm=NormLayer(name=norm, kind="layer"), branches=(Branch(layer=layer),))
        for name, layer, norm in parts
    ]
    return Block(parts=(*residuals, NormLayer(name="layer_norm", kind="layer")))


WHOLES: dict[str, Whole] = {"phi4_multimodal": Whole(encoders=phi4, prefix="")}
"""Readers by `model_type` of the whole model."""
