"""Two BERT-like language models as an encoder and a decoder that attends to it (arXiv 1907.12461)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from graphsim.files.reading import Fields
from graphsim.models.config import ModelConfig
from graphsim.models.huggingface.bert import MAKES, BertFamily, head_of, layer_of, stem_of
from graphsim.models.huggingface.common import Reader, read_dims, unused
from graphsim.models.huggingface.defaults import completed
from graphsim.models.layers.bert_ends import EncoderEnd
from graphsim.models.layers.block import Block
from graphsim.models.layers.norm import NormLayer
from graphsim.models.source import SourceEncoder

_MAKES = {
    make.kind: make for make in (*MAKES, BertFamily(kind="bert-generation", types=False, head="plain", pooled=False))
}


def encoder_decoder(fields: Fields, name: str) -> ModelConfig:
    """Any two families in MAKES; if their widths differ, a linear layer maps one to the other."""
    unused(fields, "is_encoder_decoder", "architectures", "tie_word_embeddings")
    (reads, source), (writes, target) = (_part(fields, key) for key in ("encoder", "decoder"))
    if not target.flag("add_cross_attention", True):
        target.problem("add_cross_attention", "is not simulated; expected true")
    read, dims = read_dims(source, tied=True), read_dims(target, tied=True)
    mapped = read.hidden != dims.hidden and target.raw("cross_attention_hidden_size") is None
    if read.hidden != dims.hidden and not mapped:
        target.problem("cross_attention_hidden_size", "is not simulated; expected null")
    make = replace(reads, root="encoder")
    end = EncoderEnd(
        norm=NormLayer(name=f"encoder.{make.last}", kind="layer") if make.last else None,
        pooler="encoder.pooler.dense" if reads.pooled else "",
        projection="enc_to_dec_proj" if mapped else "",
        width=dims.hidden,
    )
    decoder = replace(writes, root=f"decoder.{writes.root}")
    head = head_of(writes, dims, target, dims.tied)
    head = replace(
        head, module=f"decoder.{head.module}", transform=_within(head.transform),
        transform_norm=_within(head.transform_norm), spare=tuple(map(_within, head.spare)),
        norm=NormLayer(name=f"{decoder.root}.{decoder.last}", kind="layer") if decoder.last else None,
    )  # fmt: skip
    return ModelConfig(
        name=name,
        hidden_size=dims.hidden,
        stem=stem_of(decoder, dims, target),
        layers=(Block(parts=layer_of(decoder, dims, target, reads=True)),) * dims.layers,
        head=head,
        layer_prefix=f"{decoder.root}.encoder.layer.{{}}.",
        max_positions=dims.positions,
        source_encoder=SourceEncoder(
            kind="encoder-decoder",
            hidden_size=read.hidden,
            stem=stem_of(make, read, source),
            layers=(Block(parts=layer_of(make, read, source, encodes=True)),) * read.layers,
            tail=end,
            layer_prefix="encoder.encoder.layer.{}.",
            output_size=dims.hidden if mapped else 0,
            max_positions=read.positions,
        ),
    )


def _within(module: str) -> str:
    return f"decoder.{module}" if module else ""


def _part(fields: Fields, key: str) -> tuple[BertFamily, Fields]:
    data = fields.raw(key)
    if not isinstance(data, Mapping):
        fields.problems.append(f"{fields.name(key)} is missing, expected a mapping")
        data = {}
    kind = data.get("model_type")
    make = _MAKES.get(kind) if isinstance(kind, str) else None
    if make is None:
        fields.problems.append(
            f"{fields.name(key)}.model_type = {kind!r} is not simulated; expected one of {_listed()}"
        )
    found = make or _MAKES["bert"]
    return found, fields.child(completed(found.kind, data)[0], fields.name(key), lenient=True)


def _listed() -> str:
    return ", ".join(_MAKES)


FAMILIES: dict[str, Reader] = {"encoder-decoder": encoder_decoder}
"""Readers by `model_type`."""
