"""BART and similar models: text to text, one embedding for both sides and the output head (arXiv 1910.13461)."""

from __future__ import annotations

from dataclasses import dataclass

from graphsim.files.reading import Fields
from graphsim.models.config import ModelConfig
from graphsim.models.huggingface.common import Reader, size, unused
from graphsim.models.huggingface.seq2seq import Side, Style, is_alone, side_of
from graphsim.models.layers.ends import Head, Stem
from graphsim.models.layers.norm import NormLayer
from graphsim.models.source import SourceEncoder

_ENCODER = ("encoder_layers", "encoder_attention_heads", "encoder_ffn_dim")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Family:
    """The differences between these families.

    kind: the `model_type`
    embedding_norm: whether a norm follows the embeddings
    final_norm: whether one follows the last layer
    tables: whether positions are stored, learned or precomputed
    offset: number of additional rows in their table
    """

    kind: str
    style: Style
    embedding_norm: bool = False
    final_norm: bool = False
    tables: bool = True
    offset: int = 0

    def stem(self, kind: str, entries: int, positions: int, shared: bool = False) -> Stem:
        """The embeddings of the `encoder` or the `decoder`."""
        module = f"model.{kind}"
        return Stem(
            vocab_size=entries,
            positions=positions + self.offset if self.tables else 0,
            norm=NormLayer(name=f"{module}.layernorm_embedding", kind="layer") if self.embedding_norm else None,
            module=f"{module}.embed_tokens",
            position_module=f"{module}.embed_positions",
            shared=shared,
        )

    def norm(self, kind: str) -> NormLayer | None:
        """The norm after the last layer; None if there is none."""
        return NormLayer(name=f"model.{kind}.layer_norm", kind="layer") if self.final_norm else None

    def encoder(self, side: Side, entries: int, positions: int, shared: bool) -> SourceEncoder:
        """The encoder of the input."""
        return SourceEncoder(
            kind=self.kind,
            hidden_size=side.hidden,
            stem=self.stem("encoder", entries, positions, shared),
            layers=side.encoder_layers(self.style),
            tail=self.norm("encoder"),
            max_positions=positions if self.tables else 0,
        )


_MAKES = (
    _Family(kind="bart", style=Style(pre_norm=False), embedding_norm=True, offset=2),
    _Family(kind="plbart", style=Style(pre_norm=False), embedding_norm=True, offset=2),
    _Family(kind="mvp", style=Style(pre_norm=False), embedding_norm=True, offset=2),
    _Family(kind="mbart", style=Style(), embedding_norm=True, final_norm=True, offset=2),
    _Family(kind="marian", style=Style(pre_norm=False)),
    _Family(kind="pegasus", style=Style(), final_norm=True),
    _Family(kind="blenderbot", style=Style(), final_norm=True),
    _Family(kind="blenderbot-small", style=Style(pre_norm=False), embedding_norm=True),
    _Family(kind="m2m_100", style=Style(), final_norm=True, tables=False),
)
"""The variants that `bart` reads."""


def bart(fields: Fields, name: str) -> ModelConfig:
    """An encoder and a decoder, or only the decoder."""
    kind = fields.data.get("model_type")
    make, alone = next(make for make in _MAKES if make.kind == kind), is_alone(fields)
    decoder, positions = side_of(fields, "decoder"), size(fields, "max_position_embeddings")
    apart = not fields.flag("share_encoder_decoder_embeddings", True)
    vocab = size(fields, "vocab_size")
    own = size(fields, "decoder_vocab_size", default=vocab) if apart or alone else vocab
    unused(fields, "decoder_vocab_size", "scale_embedding")
    if fields.flag("use_prompt", False):
        fields.problem("use_prompt", "is not simulated; expected false")
    unused(fields, "prompt_length", "prompt_mid_dim")
    if alone:
        unused(fields, *_ENCODER)
    tied = fields.flag("tie_word_embeddings", True)
    if not tied and not alone:
        fields.problem("tie_word_embeddings", "is not simulated for an encoder-decoder; expected true")
    return ModelConfig(
        name=name,
        hidden_size=decoder.hidden,
        stem=make.stem("decoder", own, positions),
        layers=decoder.decoder_layers(make.style, alone),
        head=Head(vocab_size=own, tied=tied, norm=make.norm("decoder")),
        layer_prefix="model.decoder.layers.{}.",
        max_positions=positions if make.tables else 0,
        source_encoder=None if alone else make.encoder(side_of(fields, "encoder"), vocab, positions, shared=not apart),
    )


FAMILIES: dict[str, Reader] = {make.kind: bart for make in _MAKES}
"""Readers by `model_type`."""
