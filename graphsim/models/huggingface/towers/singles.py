"""Towers of single families: Kimi K2.5, VideoLLaMA 3, Fuyu, Ovis 2."""

from __future__ import annotations

from graphsim.models.huggingface.common import size, unused
from graphsim.models.huggingface.towers.cuts import Native
from graphsim.models.huggingface.towers.tiles import Tiles
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
from graphsim.models.layers.attention import AttentionNames
from graphsim.models.layers.encoder import Encoder, Rows, Section
from graphsim.models.layers.mlp import Mlp, MlpNames
from graphsim.models.layers.norm import NormLayer
from graphsim.models.layers.patches import PatchEmbedding, Take, Weights
from graphsim.models.layers.projector import Linear, Projector


def kimi_k25(parts: Parts) -> tuple[Encoder, ...]:
    """MoonViT: learned and rotary positions, concatenated neighbouring patches (arXiv 2602.02276)."""
    vision = parts.nested("vision_config", "kimi_k25_vision")
    unused(vision, "pos_emb_time")  # fixed sinusoids (transformers 5.24, Kimi_K25VisionPositionEmbeddings)
    unused(parts.fields, "projection_layer_norm_eps")
    width, patch, merge = size(vision, "hidden_size"), patch_side(vision), sides(vision, "merge_kernel_size")
    embed = PatchEmbedding(
        module="patch_embed.proj", inputs=3 * patch**2, bias=True,
        positions=size(vision, "pos_emb_height") * size(vision, "pos_emb_width"),
        position_name="patch_embed.pos_emb.position_embeddings",
    )  # fmt: skip
    names = {part: f"attn.{part}_proj" for part in "qkv"}
    attention = attention_of(vision, rope=True, names=AttentionNames(**names, o="attn.proj"))
    mlp = Mlp(intermediate=size(vision, "intermediate_size"), gated=False, bias=True, names=MLP)
    layer = layer_of(attention, mlp, ("norm1", "norm2"))
    merged, rows = width * merge[0] * merge[1], Rows(shared=merge[0] * merge[1])
    project = Projector(linears=(Linear(module="in_proj", n=merged), Linear(module="out_proj", n=parts.hidden)))
    normed = NormLayer(name="pre_norm", kind="layer", width=size(parts.fields, "projection_hidden_size", default=width))
    module, end = "model.vision_tower.", "model.mm_projector."
    sections = (
        Section(layers=(embed,), hidden=width, prefix=module),
        Section(layers=(layer,) * depth(vision), hidden=width, prefix=f"{module}layers.{{}}."),
        Section(layers=(NormLayer(name="final_layernorm", kind="layer"),), hidden=width, prefix=module),
        Section(layers=(normed,), hidden=width, prefix=end),
        Section(layers=(project,), hidden=merged, rows=rows, prefix=end),
    )
    # at most 16384 patches (transformers 5.24, `image_processing_kimi_k25.py`)
    cut = Native(patch=patch, merge=merge[0], least=(patch * merge[0]) ** 2, most=16_384 * patch**2)
    return (Encoder(name="vision", cut=cut, sections=sections),)


def video_llama_3(parts: Parts) -> tuple[Encoder, ...]:
    """SigLIP with rotary positions in place of learned ones, and two linear layers (arXiv 2501.13106)."""
    vision, module = parts.nested("vision_config", "video_llama_3_vision"), "model.vision_model"
    width, patch = size(vision, "hidden_size"), patch_side(vision)
    embed = PatchEmbedding(
        module="embeddings.patch_embedding", inputs=size(vision, "num_channels", default=3) * patch**2, bias=True
    )
    layers, norm = siglip_layers(vision, module, rope=True)
    project = Projector(
        linears=(Linear(module="readout.0", n=parts.hidden), Linear(module="readout.2", n=parts.hidden))
    )
    sections = (
        Section(layers=(embed,), hidden=width, prefix=f"{module}."), layers, norm,
        Section(layers=(project,), hidden=width, prefix="model.projector."),
    )  # fmt: skip
    return (Encoder(name="vision", cut=Native(patch=patch), sections=sections),)


def fuyu(parts: Parts) -> tuple[Encoder, ...]:
    """No tower: one linear layer maps patches to the language model's width."""
    unused(parts.fields, "image_size")
    patch = size(parts.fields, "patch_size", default=30)
    embed = PatchEmbedding(
        module="vision_embed_tokens", inputs=size(parts.fields, "num_channels", default=3) * patch**2, bias=True,
        linear=True,
    )  # fmt: skip
    section = Section(layers=(embed,), hidden=parts.hidden, prefix="model.")
    # at most 1080 x 1920 pixels (transformers 5.24, `image_processing_fuyu.py`)
    cut = Native(patch=patch, least=patch**2, most=1080 * 1920)
    return (Encoder(name="vision", cut=cut, sections=(section,)),)


def ovis2(parts: Parts) -> tuple[Encoder, ...]:
    """A vision transformer whose rows are probabilities over a visual vocabulary (arXiv 2405.20797)."""
    vision, module = parts.nested("vision_config", "ovis2_vision"), "model.vision_tower."
    unused(vision, "tokenize_function")
    said = (size(parts.fields, "vocab_size", default=0, least=0), size(parts.fields, "hidden_size", default=0, least=0))
    if not parts.language.head.tied and said != (parts.language.stem.vocab_size, parts.hidden):
        told = "is not allowed beside a vocab_size and hidden_size that are not text_config's; expected true"
        parts.fields.problem("tie_word_embeddings", told)
    width, patch, image = size(vision, "hidden_size"), patch_side(vision), sides(vision)
    embed = PatchEmbedding(
        module="embeddings.patch_embedding", inputs=size(vision, "num_channels", default=3) * patch**2, bias=True,
        positions=(image[0] // patch) ** 2, position_module="embeddings.position_embedding",
    )  # fmt: skip
    names = AttentionNames(**{part: f"attention.{part}_proj" for part in "qkv"}, o="attention.out_proj")
    gates = MlpNames(**{part: f"ffn.{part}_proj" for part in ("gate", "up", "down")})
    mlp = Mlp(intermediate=size(vision, "intermediate_size"), bias=vision.flag("mlp_bias", False), names=gates)
    attention = attention_of(vision, bias=vision.flag("qkv_bias", False), names=names)
    layer = layer_of(attention, mlp, ("rms_norm1", "rms_norm2"), "rms")
    entries, side = size(vision, "vocab_size"), size(vision, "hidden_stride", default=1)
    words = entries - size(vision, "num_visual_indicator_tokens", default=5, least=0, most=max(entries - 1, 0))
    head = Projector(
        linears=(Linear(module="head_linear", n=words, bias=False),),
        behind=NormLayer(name="head_norm", kind="layer", width=words),
    )
    table = Weights(
        names=("visual_embeddings_table",), entries=entries, width=size(parts.fields, "hidden_size", default=1536)
    )
    own, rows = f"{module}transformer.", Rows(shared=side**2)
    sections = (
        Section(layers=(embed, NormLayer(name="embeddings.rms_norm")), hidden=width, prefix=own),
        Section(layers=(layer,) * depth(vision), hidden=width, prefix=f"{own}encoder.layers.{{}}."),
        Section(layers=(NormLayer(name="rms_norm"),), hidden=width, prefix=own),
        Section(layers=(head,), hidden=width * side**2, rows=rows, prefix=module),
        Section(layers=(Take(), table), hidden=parts.hidden, rows=rows, prefix="model."),
    )
    return (Encoder(name="vision", cut=Tiles(tile=image, patch=patch, most=9), sections=sections),)


WHOLES: dict[str, Whole] = {
    "kimi_k25": Whole(encoders=kimi_k25),
    "video_llama_3": Whole(encoders=video_llama_3, either_ties=True),
    "fuyu": Whole(encoders=fuyu),
    "ovis2": Whole(encoders=ovis2),
}
"""Readers by `model_type` of the whole model."""
