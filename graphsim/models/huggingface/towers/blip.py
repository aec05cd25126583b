"""BLIP-2 and InstructBLIP (arXiv 2301.12597, 2305.06500): a vision transformer, a Q-Former, a linear layer."""

from __future__ import annotations

from dataclasses import replace

from graphsim.files.reading import Fields
from graphsim.models.huggingface.common import size, unused
from graphsim.models.huggingface.towers.cuts import Nothing, Resized
from graphsim.models.huggingface.towers.trunks import MLP, attention_of, depth, layer_of, patch_side, sides
from graphsim.models.huggingface.towers.whole import Parts, Whole
from graphsim.models.layers.attention import AttentionNames
from graphsim.models.layers.base import Projection
from graphsim.models.layers.encoder import Cut, Encoder, Rows, Section
from graphsim.models.layers.idle import Idle, Kept
from graphsim.models.layers.mlp import Mlp
from graphsim.models.layers.norm import NormLayer
from graphsim.models.layers.patches import PatchEmbedding
from graphsim.models.layers.projector import Linear, Projector
from graphsim.models.layers.qformer import QFormer


def blip2(parts: Parts) -> tuple[Encoder, ...]:
    """BLIP-2, whose Q-Former processes only queries."""
    if not parts.fields.flag("use_decoder_only_language_model", True):
        parts.fields.problem("use_decoder_only_language_model", "is not allowed; expected true")
    form = parts.nested("qformer_config", "blip_2_qformer")
    unused(form, "vocab_size", "max_position_embeddings")
    unused(parts.fields, "image_text_hidden_size")
    if form.flag("use_qformer_text_input", False):
        form.problem("use_qformer_text_input", "is not allowed; expected false")
    return (_encoder(parts, form, "blip_2_vision_model", "qformer.layernorm", ()),)


def instructblip(parts: Parts) -> tuple[Encoder, ...]:
    """InstructBLIP, whose Q-Former also processes the instruction, with a separate embedding and separate MLPs."""
    parts.notes.append("not priced: the instruction's own rows in the Q-Former")
    form = parts.nested("qformer_config", "instructblip_qformer")
    if not parts.fields.flag("use_decoder_only_language_model", True):
        parts.fields.problem("use_decoder_only_language_model", "is not allowed; expected true")
    width, inner = size(form, "hidden_size"), size(form, "intermediate_size")
    vocab, positions = size(form, "vocab_size"), size(form, "max_position_embeddings")
    linears = tuple(
        replace(one, name=f"qformer.encoder.layer.{i}.{one.name}", bias=True, quantised=False)
        for i in range(depth(form))
        for one in (
            Projection(name="intermediate.dense", n=inner, k=width),
            Projection(name="output.dense", n=width, k=inner),
        )
    )
    tables = {"word_embeddings": vocab, "position_embeddings": positions}
    kept = (
        *(Kept(name=f"qformer.embeddings.{name}", entries=n, width=width) for name, n in tables.items()),
        *(Kept(name=f"qformer.encoder.layer.{i}.output.LayerNorm", entries=2 * width) for i in range(depth(form))),
    )
    own = Idle(linears=linears, kept=kept)
    beside = (Section(layers=(own,), hidden=width, idle=True),)
    return (_encoder(parts, form, "instructblip_vision_model", "qformer.embeddings.layernorm", beside),)


def _encoder(parts: Parts, form: Fields, kind: str, norm: str, beside: tuple[Section, ...]) -> Encoder:
    vision = parts.nested("vision_config", kind)
    width, patch, image, rows = size(vision, "hidden_size"), patch_side(vision), sides(vision), Rows(further=1)
    embed = PatchEmbedding(
        module="embeddings.patch_embedding", inputs=3 * patch**2, bias=True, further=1,
        further_name="embeddings.class_embedding", position_name="embeddings.position_embedding",
        positions=(image[0] // patch) ** 2 + 1,
    )  # fmt: skip
    attention = attention_of(
        vision, bias=vision.flag("qkv_bias", True), out_bias=True,
        names=AttentionNames(fused="self_attn.qkv", o="self_attn.projection"),
    )  # fmt: skip
    mlp = Mlp(intermediate=size(vision, "intermediate_size"), gated=False, bias=True, names=MLP)
    layer = layer_of(attention, mlp, ("layer_norm1", "layer_norm2"))
    unused(form, "encoder_hidden_size")  # always the tower's width
    queries, hidden = size(parts.fields, "num_query_tokens", default=32), size(form, "hidden_size")
    former = QFormer(
        queries=queries, depth=depth(form), heads=size(form, "num_attention_heads"),
        intermediate=size(form, "intermediate_size"), frequency=size(form, "cross_attention_frequency", default=2),
        width=width, norm=norm,
    )  # fmt: skip
    project, module = Projector(linears=(Linear(module="language_projection", n=parts.hidden),)), "vision_model."
    sections = (
        Section(layers=(embed,), hidden=width, rows=rows, prefix=module),
        Section(layers=(layer,) * depth(vision), hidden=width, rows=rows, prefix=f"{module}encoder.layers.{{}}."),
        Section(layers=(NormLayer(name="post_layernorm", kind="layer"),), hidden=width, rows=rows, prefix=module),
        *beside,
        Section(layers=(former, project), hidden=hidden, rows=Rows(fixed=queries)),
    )
    cut: Cut = Resized(image=image, patch=patch)
    if parts.fields.raw("model_type") == "instructblipvideo":
        cut = Nothing()
    return Encoder(name="vision", cut=cut, sections=sections)


WHOLES: dict[str, Whole] = {
    "blip-2": Whole(encoders=blip2, prefix="language_model.", bare=False),
    "instructblip": Whole(encoders=instructblip, prefix="language_model.", bare=False),
    "instructblipvideo": Whole(encoders=instructblip, prefix="language_model.", bare=False),
}
"""Readers by `model_type` of the whole model."""
