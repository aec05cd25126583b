"""RWKV-4."""

from __future__ import annotations

from graphsim.files.reading import Fields
from graphsim.models.config import ModelConfig
from graphsim.models.huggingface.common import MOST_LAYERS, Dims, Reader, assemble, size, unused
from graphsim.models.layers.base import Layer
from graphsim.models.layers.block import Block, Branch, Residual
from graphsim.models.layers.ends import Head, Stem
from graphsim.models.layers.norm import NormLayer
from graphsim.models.layers.rwkv import RwkvAttention, RwkvFeedForward


def rwkv(fields: Fields, name: str) -> ModelConfig:
    """Time mixing, then channel mixing; an additional norm before the first layer."""
    unused(fields, "context_length", "rescale_every")
    hidden = size(fields, "hidden_size")
    width = size(fields, "attention_hidden_size", default=hidden)
    dims = Dims(
        hidden=hidden,
        layers=size(fields, "num_hidden_layers", most=MOST_LAYERS),
        heads=1,
        kv_heads=1,
        head_dim=width,
        intermediate=size(fields, "intermediate_size", default=4 * hidden),
        vocab=size(fields, "vocab_size"),
        positions=0,
        tied=fields.flag("tie_word_embeddings", False),
    )
    parts = (
        _part("attn_residual", "ln1", RwkvAttention(width=width)),
        _part("mlp_residual", "ln2", RwkvFeedForward(intermediate=dims.intermediate)),
    )
    first = Block(parts=(NormLayer(name="pre_ln", kind="layer"), *parts))
    return assemble(
        name,
        dims,
        [first, *[Block(parts=parts)] * (dims.layers - 1)],
        stem=Stem(vocab_size=dims.vocab, module="rwkv.embeddings"),
        head=Head(
            vocab_size=dims.vocab,
            tied=dims.tied,
            norm=NormLayer(name="rwkv.ln_out", kind="layer"),
            module="head",
        ),
        prefix="rwkv.blocks.{}.",
    )


def _part(label: str, norm: str, layer: Layer) -> Residual:
    return Residual(name=label, norm=NormLayer(name=norm, kind="layer"), branches=(Branch(layer=layer),))


FAMILIES: dict[str, Reader] = {"rwkv": rwkv}
"""Readers by `model_type`."""
