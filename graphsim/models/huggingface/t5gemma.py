"""T5Gemma: an encoder and a decoder made of Gemma 2's layers (arXiv 2504.06225)."""

from __future__ import annotations

from collections.abc import Mapping

from graphsim.files.reading import Fields
from graphsim.models.config import ModelConfig
from graphsim.models.huggingface.common import Dims, Reader, read_dims, unused, windows
from graphsim.models.huggingface.defaults import nested_defaults
from graphsim.models.layers.attention import AttentionNames, SelfAttention
from graphsim.models.layers.base import Layer
from graphsim.models.layers.block import Block, Branch, Residual
from graphsim.models.layers.cross_attention import CrossAttention
from graphsim.models.layers.ends import Head, Stem
from graphsim.models.layers.mlp import Mlp
from graphsim.models.layers.norm import NormLayer
from graphsim.models.source import SourceEncoder

_CROSS = AttentionNames(**{part: f"cross_attn.{part}_proj" for part in "qkvo"})
_MODULE = "t5_gemma_module"


def t5gemma(fields: Fields, name: str) -> ModelConfig:
    """Separate embeddings on both sides; the decoder's is tied to the output head."""
    unused(fields, "is_encoder_decoder", "architectures", "vocab_size")
    encoder, read_notes = _side(fields, "encoder")
    decoder, own_notes = _side(fields, "decoder")
    unused(decoder, "cross_attention_hidden_size")  # always the encoder's width
    dims, read = read_dims(decoder, tied=True), read_dims(encoder, tied=True)
    tied = fields.flag("tie_word_embeddings", True)
    head = Head(
        vocab_size=dims.vocab,
        tied=tied,
        soft_cap=dims.soft_cap,
        norm=NormLayer(name="model.decoder.norm"),
        module="lm_head.out_proj",
    )
    return ModelConfig(
        name=name,
        hidden_size=dims.hidden,
        stem=Stem(vocab_size=dims.vocab, module="model.decoder.embed_tokens"),
        layers=_layers(decoder, dims, read.hidden),
        head=head,
        layer_prefix="model.decoder.layers.{}.",
        max_positions=dims.positions,
        notes=(*read_notes, *own_notes),
        source_encoder=SourceEncoder(
            kind="t5gemma",
            hidden_size=read.hidden,
            stem=Stem(vocab_size=read.vocab, module="model.encoder.embed_tokens"),
            layers=_layers(encoder, read, 0),
            tail=NormLayer(name="model.encoder.norm"),
            max_positions=read.positions,
        ),
    )


def _side(fields: Fields, key: str) -> tuple[Fields, tuple[str, ...]]:
    """The config of one side with transformers' defaults for missing fields, and notes on them."""
    data = fields.raw(key)
    if not isinstance(data, Mapping):
        fields.problems.append(f"{fields.name(key)} is missing, expected a mapping")
        data = {}
    whole, note = nested_defaults(_MODULE, _MODULE, data)
    told = (f"{key} leaves out, so assumed as transformers does: {note}",) if note else ()
    return fields.child(whole, fields.name(key), lenient=True), told


def _layers(fields: Fields, dims: Dims, source_width: int) -> tuple[Layer, ...]:
    """Layers of the decoder or the encoder.

    source_width: width of the rows to which the decoder attends; 0 for the encoder
    """
    bias, cap = fields.flag("attention_bias", False), bool(fields.number("attn_logit_softcapping", 0.0))
    unused(fields, "query_pre_attn_scalar", "is_decoder")
    mlp = _part("mlp_residual", Mlp(intermediate=dims.intermediate), "feedforward_layernorm")
    cross = CrossAttention(
        heads=dims.heads, kv_heads=dims.kv_heads, head_dim=dims.head_dim, width=source_width, bias=bias, out_bias=bias,
        soft_cap=cap, names=_CROSS,
    )  # fmt: skip
    crossed = (_part("cross_residual", cross, "cross_attn_layernorm"),) if source_width else ()
    layers = []
    for window in windows(fields, dims.layers, lambda i: i % 2 == 0):
        attention = SelfAttention(
            heads=dims.heads, kv_heads=dims.kv_heads, head_dim=dims.head_dim, window=window, qkv_bias=bias,
            out_bias=bias, soft_cap=cap, cached=bool(source_width),
        )  # fmt: skip
        layers.append(Block(parts=(_part("attn_residual", attention, "self_attn_layernorm"), *crossed, mlp)))
    return tuple(layers)


def _part(name: str, layer: Layer, norm: str) -> Residual:
    before, after = NormLayer(name=f"pre_{norm}"), NormLayer(name=f"post_{norm}")
    return Residual(name=name, norm=before, post_norm=after, branches=(Branch(layer=layer),))


FAMILIES: dict[str, Reader] = {"t5gemma": t5gemma}
"""Readers by `model_type`."""
