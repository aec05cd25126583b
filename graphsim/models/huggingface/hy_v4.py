"""Hy4: gated latent attention with sinks and shared indexers, on a residual of several streams."""

from __future__ import annotations

from dataclasses import replace

from graphsim.files.reading import Fields
from graphsim.models.config import ModelConfig
from graphsim.models.huggingface.common import Reader, assemble, read_dims, size, unused, with_drafts
from graphsim.models.huggingface.deepseek import latent_attention, shared_indexers
from graphsim.models.huggingface.moe import dense_or_sparse
from graphsim.models.layers.base import Layer
from graphsim.models.layers.ends import Head, Stem
from graphsim.models.layers.hyper_connections import HyperBlock, HyperConnection, JoinStreams, SpreadStreams
from graphsim.models.layers.norm import NormLayer


def hy_v4(fields: Fields, name: str) -> ModelConfig:
    """Streams that are not mixed with each other; by default, one dense layer, and indexers in layers 0, 1, 5, 9, …."""
    fields.data = {"first_k_dense_replace": 1, **fields.data}
    dims = read_dims(fields, floor=True)
    if "indexer_types" not in fields:
        types = ["shared" if i and (i - 1) % 4 else "full" for i in range(dims.layers)]
        fields.data = {**fields.data, "indexer_types": types}
    streams = size(fields, "hc_mult", default=4, most=64)
    latent = latent_attention(fields, dims)
    latent = replace(latent, gate=latent.value_dim, gate_name="gate_proj", sinks=True)
    blocks: list[Layer] = [
        HyperBlock(
            parts=(
                HyperConnection(
                    name="attn_hc", norm=NormLayer(name="input_layernorm"), layer=replace(latent, reuses=shared)
                ),
                HyperConnection(name="ffn_hc", norm=NormLayer(name="post_attention_layernorm"), layer=feed),
            ),
            streams=streams,
            mixed=False,
        )
        for shared, feed in zip(
            shared_indexers(fields, dims.layers), dense_or_sparse(fields, dims, adapted=False), strict=False
        )
    ]
    unused(fields, "head_dim", "layer_types", "learnable_sink_init", "hc_magnitude")
    head = Head(
        vocab_size=dims.vocab,
        tied=dims.tied,
        norm=NormLayer(name="model.norm"),
        join=JoinStreams(streams=streams),
    )
    stem = Stem(vocab_size=dims.vocab, spread=SpreadStreams(streams=streams))
    model = assemble(name, dims, blocks, stem=stem, head=head)
    return with_drafts(replace(model, streams=streams), fields)


FAMILIES: dict[str, Reader] = {"hy_v4": hy_v4, "hy_v4_vl_text": hy_v4}
"""Readers by `model_type`."""
