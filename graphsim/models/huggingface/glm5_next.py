"""GLM-5.3-Flash: Kimi delta attention and indexed latent attention without positions, a residual of several streams."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from graphsim.files.reading import Fields
from graphsim.models.config import ModelConfig
from graphsim.models.huggingface.common import (
    Dims,
    Reader,
    assemble,
    kinds,
    read_dims,
    size,
    unused,
    with_drafts,
)
from graphsim.models.huggingface.deepseek import latent_attention, shared_indexers
from graphsim.models.huggingface.moe import dense_or_sparse
from graphsim.models.layers.base import Layer
from graphsim.models.layers.ends import Head, Stem
from graphsim.models.layers.hyper_connections import HyperBlock, HyperConnection, MeanStreams, SpreadStreams
from graphsim.models.layers.indexer import PooledIndexer
from graphsim.models.layers.kda import KimiDeltaAttention
from graphsim.models.layers.norm import NormLayer


def glm5_next(fields: Fields, name: str) -> ModelConfig:
    """The mean of the streams is the final state; by default, the first three layers are dense."""
    unused(fields, "head_dim", "linear_lower_bound")
    given = {key: value for key, value in fields.data.items() if key != "head_dim"}
    fields.data = {"first_k_dense_replace": 3, **given}
    dims = read_dims(fields, floor=True)
    streams, rounds = size(fields, "hc_mult", default=4, most=64), size(fields, "hc_sinkhorn_iters", default=20)
    attentions = _attentions(fields, dims)
    blocks: list[Layer] = [
        HyperBlock(
            parts=(
                HyperConnection(name="attn_hc", norm=NormLayer(name="input_layernorm"), layer=attention),
                HyperConnection(name="ffn_hc", norm=NormLayer(name="post_attention_layernorm"), layer=feed),
            ),
            streams=streams,
            iterations=rounds,
        )
        for attention, feed in zip(attentions, dense_or_sparse(fields, dims, adapted=False), strict=False)
    ]
    head = Head(
        vocab_size=dims.vocab,
        tied=dims.tied,
        norm=NormLayer(name="model.norm"),
        join=MeanStreams(streams=streams),
    )
    stem = Stem(vocab_size=dims.vocab, spread=SpreadStreams(streams=streams))
    model = assemble(name, dims, blocks, stem=stem, head=head)
    return with_drafts(replace(model, streams=streams), fields)


def _attentions(fields: Fields, dims: Dims) -> list[Layer]:
    layers = dims.layers
    given = fields.raw("linear_attn_config", {})
    section = fields.child(given if isinstance(given, Mapping) else {}, "linear_attn_config", lenient=True)
    head_dim = size(section, "head_dim", default=size(fields, "linear_head_dim", default=128))
    delta = KimiDeltaAttention(
        heads=size(section, "num_heads", default=size(fields, "linear_num_heads", default=64)),
        head_dim=head_dim,
        taps=size(section, "short_conv_kernel_size", default=size(fields, "linear_conv_kernel_dim", default=4)),
        rank=head_dim,
    )
    pool, chosen = size(fields, "index_kpool", default=16), size(fields, "index_topk")
    if chosen % pool:
        fields.problem("index_topk", f"is not a multiple of index_kpool = {pool}")
    if size(fields, "qk_rope_head_dim", default=0, least=0):
        fields.problem("qk_rope_head_dim", "is not allowed; expected 0: this attention has no positions")
    tail = pool - 1 if fields.flag("index_kpool_always_select_tail", True) else 0
    indexer = PooledIndexer(
        heads=size(fields, "index_n_heads"), head_dim=size(fields, "index_head_dim"), chosen=chosen + tail, pool=pool
    )
    latent = replace(latent_attention(fields, dims, rope=0), indexer=indexer)
    types = kinds(fields, "layer_types", "indexed_attention", "full_attention", "linear_attention") or [
        "indexed_attention" if i % 4 == 3 else "linear_attention" for i in range(layers)
    ]
    if len(types) != layers:
        fields.problems.append(f"layer_types has {len(types)} entries, expected one for each of {layers} layers")
    shares = shared_indexers(fields, layers)
    return [
        delta if kind == "linear_attention" else replace(latent, reuses=shared)
        for kind, shared in zip(types, shares, strict=False)
    ]


FAMILIES: dict[str, Reader] = {"glm5_next_text": glm5_next, "glm5_next": glm5_next}
"""Readers by `model_type`."""
