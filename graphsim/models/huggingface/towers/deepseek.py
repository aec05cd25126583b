"""DeepSeek-VL with one tower, or with a second one for high resolution (arXiv 2403.05525); Janus (2501.17811)."""

from __future__ import annotations

from graphsim.files.reading import Fields
from graphsim.models.huggingface.common import size, unused
from graphsim.models.huggingface.towers.cuts import Resized
from graphsim.models.huggingface.towers.sam import neck, sam
from graphsim.models.huggingface.towers.trunks import MLP, attention_of, depth, layer_of, patch_side, sides, trunk_of
from graphsim.models.huggingface.towers.vq import vq_model
from graphsim.models.huggingface.towers.whole import Parts, Whole
from graphsim.models.layers.attention import AttentionNames, QkNorm
from graphsim.models.layers.base import Projection
from graphsim.models.layers.block import Block
from graphsim.models.layers.encoder import Encoder, Rows, Section
from graphsim.models.layers.idle import Idle, Kept
from graphsim.models.layers.mlp import Mlp
from graphsim.models.layers.norm import NormLayer
from graphsim.models.layers.patches import Convolution, PatchEmbedding, Take
from graphsim.models.layers.projector import Linear, Projector

SIDE = 24
"""Rows per side to which the high-resolution tower's are resized (transformers 5.24, DeepseekVLSamVisionProj)."""


def deepseek_vl(parts: Parts) -> tuple[Encoder, ...]:
    """SigLIP and two linear layers."""
    trunk = trunk_of(parts.nested("vision_config", "siglip_vision_model"), "model.vision_model")
    linears = (Linear(module="linear1", n=parts.hidden), Linear(module="linear2", n=parts.hidden))
    last = Section(layers=(Projector(linears=linears),), hidden=trunk.width, prefix="model.aligner.")
    cut = Resized(image=trunk.image, patch=trunk.patch)
    return (Encoder(name="vision", cut=cut, sections=(*trunk.sections, last)),)


def hybrid(parts: Parts) -> tuple[Encoder, ...]:
    """Rows of SigLIP concatenated with those of SAM, which are resized to the same number."""
    low = trunk_of(parts.nested("vision_config", "siglip_vision_model"), "model.vision_model")
    high = sam(parts.nested("high_res_vision_config", "sam_vision_model"), "model.high_res_vision_model.vision_encoder")
    half, module = parts.hidden // 2, "model.high_res_vision_proj."
    project = Projector(linears=(Linear(module="vision_proj", n=half),))
    aligner = Projector(linears=(Linear(module="proj", n=parts.hidden),))
    width = high.width
    resized = Rows(fixed=(4 * SIDE) ** 2)
    fine = Projector(linears=(Linear(module="high_res_vision_proj", n=half),))
    own = Idle(kept=(Kept(name="high_res_vision_alpha", entries=1),))  # factor in the sum with the second neck's rows
    sections = (
        *high.sections,
        Section(layers=neck(high.sections[0].hidden), hidden=width, prefix="model.high_res_vision_neck.", idle=True),
        Section(layers=(own,), hidden=width, prefix="model.", idle=True),
        Section(layers=(Take(),), hidden=width, rows=resized),
        Section(layers=(Convolution(name="conv1", inputs=width, stride=4),), hidden=2 * width,
                rows=Rows(fixed=4 * SIDE**2), prefix=module),
        Section(layers=(Convolution(name="conv2", inputs=2 * width, stride=4),), hidden=4 * width,
                rows=Rows(fixed=SIDE**2), prefix=module),
        Section(layers=(fine,), hidden=4 * width, rows=Rows(fixed=SIDE**2), prefix="model.aligner."),
    )  # fmt: skip
    ends = (
        Section(layers=(project,), hidden=low.width, prefix="model.aligner."),
        Section(layers=(Take(), aligner), hidden=2 * half, prefix="model.aligner."),
    )
    return (
        Encoder(name="fine", cut=Resized(image=high.image, patch=high.patch), sections=sections, fed=False),
        Encoder(name="vision", cut=Resized(image=low.image, patch=low.patch), sections=(*low.sections, *ends)),
    )


def janus(parts: Parts) -> tuple[Encoder, ...]:
    """A SigLIP-like vision transformer for images in; weights include a VQ model and a head for images out."""
    vision = parts.nested("vision_config", "janus_vision_model")
    unused(vision, "num_image_tokens")
    width, patch, image, module = size(vision, "hidden_size"), patch_side(vision), sides(vision), "model.vision_model."
    embed = PatchEmbedding(
        module="embeddings.patch_embedding", inputs=size(vision, "num_channels", default=3) * patch**2, bias=True,
        positions=(image[0] // patch) ** 2, position_module="embeddings.position_embedding",
    )  # fmt: skip
    n = size(vision, "projection_dim", default=parts.hidden)
    times = size(vision, "depth", default=2, most=100)
    linears = ("fc1", *(f"hidden_layers.{i}" for i in range(times - 1)))
    project = Projector(linears=tuple(Linear(module=name, n=n) for name in linears))
    sections = (
        Section(layers=(embed,), hidden=width, prefix=module),
        Section(layers=(_janus_layer(vision),) * _layers(vision), hidden=width, prefix=f"{module}encoder.layers.{{}}."),
        Section(layers=(NormLayer(name="post_layernorm", kind="layer"),), hidden=width, prefix=module),
        Section(layers=(project,), hidden=width, prefix="model.aligner."),
        Section(layers=(_drawing(parts),), hidden=n, prefix="model.", idle=True),
    )
    return (Encoder(name="vision", cut=Resized(image=image, patch=patch), sections=sections),)


def _layers(vision: Fields) -> int:
    """Number of layers; `depth` is that of the aligner."""
    return depth(vision.child({"num_hidden_layers": vision.raw("num_hidden_layers")}, vision.path, lenient=True))


def _janus_layer(vision: Fields) -> Block:
    names = {part: f"self_attn.{part}_proj" for part in "qkv"}
    attention = attention_of(
        vision, bias=vision.flag("attention_bias", True), out_bias=True,
        names=AttentionNames(**names, o="self_attn.projection_layer"),
        qk_norm=QkNorm.FULL if vision.flag("use_qk_norm", False) else QkNorm.NONE, norm_vectors=2,
    )  # fmt: skip
    inner = int(size(vision, "hidden_size") * vision.number("mlp_ratio", 4.0, least=0.01, most=1000.0))
    mlp = Mlp(intermediate=inner, gated=False, bias=True, names=MLP)
    return layer_of(attention, mlp, ("layer_norm1", "layer_norm2"))


def _drawing(parts: Parts) -> Idle:
    """The weights for image generation: the VQ model, the embedding of its codes, the aligner and the head."""
    vq = parts.nested("vq_config", "janus_vqgan")
    unused(vq, "num_patches")
    codes, embed = size(vq, "num_embeddings"), size(vq, "embed_dim")
    out, own = size(vq, "projection_dim"), size(vq, "image_token_embed_dim")
    hidden = size(vq, "num_hidden_layers", default=2)
    linears = (
        Projection(name="generation_aligner.fc1", n=out, k=embed, bias=True, quantised=False),
        *(
            Projection(name=f"generation_aligner.hidden_layers.{i}", n=out, k=out, bias=True, quantised=False)
            for i in range(hidden - 1)
        ),
        Projection(name="generation_head.proj_out", n=out, k=own, bias=True, quantised=False),
        Projection(name="generation_head.vision_head", n=codes, k=out, bias=True, quantised=False),
    )
    kept = (
        Kept(name="generation_embeddings", entries=codes, width=embed),
        Kept(name="vqmodel", entries=vq_model(vq)),
    )
    return Idle(linears=(*linears,), kept=kept)


WHOLES: dict[str, Whole] = {
    "deepseek_vl": Whole(encoders=deepseek_vl),
    "deepseek_vl_hybrid": Whole(encoders=hybrid),
    "janus": Whole(encoders=janus),
}
"""Readers by `model_type` of the whole model."""
