"""Vision transformers that several families use: CLIP, SigLIP, Pixtral, InternViT and their relatives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from graphsim.files.reading import Fields
from graphsim.models.huggingface.common import MOST_LAYERS, size, unused
from graphsim.models.layers.attention import AttentionNames
from graphsim.models.layers.base import Layer, Projection
from graphsim.models.layers.block import Block, Branch, Residual
from graphsim.models.layers.encoder import Rows, Section
from graphsim.models.layers.encoder_attention import EncoderAttention
from graphsim.models.layers.idle import Idle, Kept
from graphsim.models.layers.mlp import Mlp, MlpNames
from graphsim.models.layers.norm import NormLayer
from graphsim.models.layers.patches import PatchEmbedding


@dataclass(frozen=True, slots=True, kw_only=True)
class Trunk:
    """A vision transformer from pixels to rows.

    width: width of its rows
    patch: side of a patch, pixels
    image: height and width to which images are resized, pixels
    rows: rows of its last section
    """

    sections: tuple[Section, ...]
    width: int
    patch: int
    image: tuple[int, int]
    rows: Rows = Rows()


OUT = AttentionNames(o="self_attn.out_proj")
MLP = MlpNames(up="mlp.fc1", down="mlp.fc2")


def layer_of(
    attention: Layer,
    mlp: Layer,
    norms: tuple[str, str],
    kind: str = "layer",
    scales: tuple[Layer | None, Layer | None] = (None, None),
) -> Block:
    """Attention, then MLP, each between a norm and an optional layer scale."""
    return Block(
        parts=tuple(
            Residual(name=label, norm=NormLayer(name=norm, kind=kind), post_norm=scale, branches=(Branch(layer=part),))
            for label, part, norm, scale in zip(
                ("attn_residual", "mlp_residual"), (attention, mlp), norms, scales, strict=True
            )
        )
    )


def attention_of(
    vision: Fields, *, bias: bool = True, out_bias: bool | None = None, **further: object
) -> EncoderAttention:
    """Multi-head attention with a total width equal to that of the rows."""
    width, heads = size(vision, "hidden_size", "embed_dim"), size(vision, "num_attention_heads", "num_heads")
    if width % heads:
        vision.problem("hidden_size", f"is not allowed; expected a multiple of the {heads} attention heads")
    found = EncoderAttention(
        heads=heads, kv_heads=heads, head_dim=max(width // heads, 1), qkv_bias=bias,
        out_bias=bias if out_bias is None else out_bias, names=OUT,
    )  # fmt: skip
    return replace(found, **further)  # type: ignore[arg-type]


def sides(vision: Fields, key: str = "image_size") -> tuple[int, int]:
    """Height and width, from one number or two."""
    value = vision.raw(key)
    if isinstance(value, list | tuple):
        if len(value) == 2 and all(isinstance(n, int) and not isinstance(n, bool) and n > 0 for n in value):
            return int(value[0]), int(value[1])
        vision.problem(key, "is not allowed; expected pixels, or height and width")
        return 1, 1
    side = size(vision, key)
    return side, side


def patch_side(vision: Fields) -> int:
    """Side of a square patch in pixels."""
    high, wide = sides(vision, "patch_size")
    if high != wide:
        vision.problem("patch_size", "is not allowed; expected square patches")
    return high


def depth(vision: Fields) -> int:
    """Number of layers."""
    return size(vision, "num_hidden_layers", "depth", most=MOST_LAYERS)


def clip(vision: Fields, module: str) -> Trunk:
    """CLIP (arXiv 2103.00020): a class token, learned positions, a norm before the layers."""
    width, patch, image = size(vision, "hidden_size"), patch_side(vision), sides(vision)
    patches = (image[0] // patch) * (image[1] // patch)
    rows = Rows(further=1)
    embed = PatchEmbedding(
        module="embeddings.patch_embedding", inputs=size(vision, "num_channels", default=3) * patch**2, further=1,
        further_name="embeddings.class_embedding",
        positions=patches + 1, position_module="embeddings.position_embedding",
        norm=NormLayer(name="pre_layrnorm", kind="layer"),
    )  # fmt: skip
    mlp = Mlp(intermediate=size(vision, "intermediate_size"), gated=False, bias=True, names=MLP)
    layer = layer_of(attention_of(vision), mlp, ("layer_norm1", "layer_norm2"))
    return Trunk(
        sections=(
            Section(layers=(embed,), hidden=width, rows=rows, prefix=f"{module}."),
            Section(layers=(layer,) * depth(vision), hidden=width, rows=rows, prefix=f"{module}.encoder.layers.{{}}."),
            Section(
                layers=(Idle(kept=(Kept(name="post_layernorm", entries=2 * width),)),),
                hidden=width,
                rows=rows,
                prefix=f"{module}.",
                idle=True,
            ),
        ),
        width=width,
        patch=patch,
        image=image,
        rows=rows,
    )


def siglip(vision: Fields, module: str) -> Trunk:
    """SigLIP (arXiv 2303.15343): learned positions, no class token; language models do not use its pooling head."""
    width, patch, image = size(vision, "hidden_size"), patch_side(vision), sides(vision)
    embed = PatchEmbedding(
        module="embeddings.patch_embedding", inputs=size(vision, "num_channels", default=3) * patch**2, bias=True,
        positions=(image[0] // patch) * (image[1] // patch), position_module="embeddings.position_embedding",
    )  # fmt: skip
    layers = siglip_layers(vision, module)
    head = (pooling_head(vision, width, module),) if vision.flag("vision_use_head", True) else ()
    return Trunk(
        sections=(Section(layers=(embed,), hidden=width, prefix=f"{module}."), *layers, *head),
        width=width,
        patch=patch,
        image=image,
    )


def siglip_layers(vision: Fields, module: str, *, rope: bool = False) -> tuple[Section, Section]:
    """Layers and the norm after them.

    rope: whether positions are rotary
    """
    width = size(vision, "hidden_size")
    mlp = Mlp(intermediate=size(vision, "intermediate_size"), gated=False, bias=True, names=MLP)
    layer = layer_of(attention_of(vision, rope=rope), mlp, ("layer_norm1", "layer_norm2"))
    norm = NormLayer(name="post_layernorm", kind="layer")
    return (
        Section(layers=(layer,) * depth(vision), hidden=width, prefix=f"{module}.encoder.layers.{{}}."),
        Section(layers=(norm,), hidden=width, prefix=f"{module}."),
    )


def pooling_head(vision: Fields, width: int, module: str) -> Section:
    """SigLIP's attention of one learned query over all rows, used in retrieval but not by language models."""
    inner = size(vision, "intermediate_size")
    linears = (
        Projection(name="head.attention.out_proj", n=width, k=width, bias=True),
        Projection(name="head.mlp.fc1", n=inner, k=width, bias=True),
        Projection(name="head.mlp.fc2", n=width, k=inner, bias=True),
    )
    kept = (
        Kept(name="head.probe", entries=width),
        Kept(name="head.attention.in_proj_weight", entries=3 * width, width=width),
        Kept(name="head.attention.in_proj_bias", entries=3 * width),
        Kept(name="head.layernorm", entries=2 * width),
    )
    idle = Idle(linears=tuple(replace(one, quantised=False) for one in linears), kept=kept)
    return Section(layers=(idle,), hidden=width, prefix=f"{module}.", idle=True)


def pixtral(vision: Fields, module: str) -> Trunk:
    """Pixtral (arXiv 2410.07073): RMSNorm, gated MLPs, 2-D rotary positions, no biases."""
    width, patch = size(vision, "hidden_size"), patch_side(vision)
    embed = PatchEmbedding(
        module="patch_conv", inputs=size(vision, "num_channels", default=3) * patch**2, norm=NormLayer(name="ln_pre")
    )
    names = {part: f"attention.{part}_proj" for part in "qkvo"}
    attention = attention_of(
        vision, bias=False, rope=True, names=AttentionNames(**names), head_dim=_head_dim(vision, width)
    )
    gates = {part: f"feed_forward.{part}_proj" for part in ("gate", "up", "down")}
    mlp = Mlp(intermediate=size(vision, "intermediate_size"), names=MlpNames(**gates))
    layer = layer_of(attention, mlp, ("attention_norm", "ffn_norm"), "rms")
    return Trunk(
        sections=(
            Section(layers=(embed,), hidden=width, prefix=f"{module}."),
            Section(layers=(layer,) * depth(vision), hidden=width, prefix=f"{module}.transformer.layers.{{}}."),
        ),
        width=width,
        patch=patch,
        image=sides(vision),
    )


def _head_dim(vision: Fields, width: int) -> int:
    """The width divided by the heads; transformers ignores `head_dim`."""
    vision.raw("head_dim")
    return max(width // size(vision, "num_attention_heads"), 1)


def idefics(vision: Fields, module: str) -> Trunk:
    """SigLIP without its pooling head, as in Idefics 2 and 3."""
    return siglip(vision.child({**vision.data, "vision_use_head": False}, vision.path, lenient=True), module)


TRUNKS: dict[str, Callable[[Fields, str], Trunk]] = {
    "clip_vision_model": clip,
    "siglip_vision_model": siglip,
    "pixtral": pixtral,
    "idefics2_vision": idefics,
    "idefics3_vision": idefics,
    "smolvlm_vision": idefics,
}
"""Readers by the `model_type` of the vision config."""


def trunk_of(vision: Fields, module: str) -> Trunk:
    """The trunk of a vision config, by its `model_type` (one of TRUNKS)."""
    kind = vision.text("model_type", choices=TRUNKS)
    # keys of the contrastive model, of processors, and of values that follow from the sizes
    unused(vision, "projection_dim", "vocab_size", "num_image_tokens", "num_positions", "max_image_size", "size")
    return TRUNKS.get(kind, clip)(vision, module)
