"""DeepSeek-V4: compressed attention, a residual of several streams, experts in all layers, chosen by a hash in some."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from graphsim.files.reading import Fields
from graphsim.models.config import ModelConfig
from graphsim.models.huggingface.common import MOST_LAYERS, Reader, assemble, read_dims, size, unused, with_drafts
from graphsim.models.huggingface.moe import experts_of
from graphsim.models.layers.base import Layer
from graphsim.models.layers.compressed_attention import CompressedAttention
from graphsim.models.layers.compression import Compression
from graphsim.models.layers.ends import Head, Stem
from graphsim.models.layers.hyper_connections import HyperBlock, HyperConnection, JoinStreams, SpreadStreams
from graphsim.models.layers.indexer import Indexer
from graphsim.models.layers.mlp import Mlp, MlpNames
from graphsim.models.layers.moe import Moe
from graphsim.models.layers.norm import NormLayer

_WINDOW, _SPARSE, _HEAVY = "sliding_attention", "compressed_sparse_attention", "heavily_compressed_attention"
_RATIOS = {0: _WINDOW, 4: _SPARSE, 128: _HEAVY}
"""Kinds of layers by their entry in `compress_ratios` (transformers 5.24, `DeepseekV4Config`)."""

_SHARED = MlpNames(**{part: f"mlp.shared_experts.{part}_proj" for part in ("gate", "up", "down")})


def deepseek_v4(fields: Fields, name: str) -> ModelConfig:
    """Layers that differ only in the compression of attention; hash routing has weights of the same size."""
    width = size(fields, "moe_intermediate_size")
    fields.data = {"num_key_value_heads": 1, **fields.data, "intermediate_size": width}
    dims = read_dims(fields, floor=True)
    streams, rounds = size(fields, "hc_mult", default=4, most=64), size(fields, "hc_sinkhorn_iters", default=20)
    experts, chosen = experts_of(fields)
    moe = Moe(
        experts=experts,
        chosen=chosen,
        intermediate=width,
        shared=Mlp(intermediate=width, bias=fields.flag("mlp_bias", False), names=_SHARED),
    )
    kinds = _attentions(fields, dims.heads, dims.head_dim)
    blocks: list[Layer] = [
        HyperBlock(
            parts=(
                HyperConnection(name="attn_hc", norm=NormLayer(name="input_layernorm"), layer=kinds[kind]),
                HyperConnection(name="ffn_hc", norm=NormLayer(name="post_attention_layernorm"), layer=moe),
            ),
            streams=streams,
            iterations=rounds,
        )
        for kind in _layer_types(fields, dims.layers)
    ]
    unused(fields, "attention_bias", "n_shared_experts", "mlp_layer_types", "num_hash_layers", "qk_rope_head_dim")
    model = assemble(
        name,
        dims,
        blocks,
        stem=Stem(vocab_size=dims.vocab, spread=SpreadStreams(streams=streams)),
        head=Head(
            vocab_size=dims.vocab,
            tied=dims.tied,
            norm=NormLayer(name="model.norm"),
            join=JoinStreams(streams=streams),
        ),
    )
    return with_drafts(replace(model, streams=streams), fields)


def _layer_types(fields: Fields, layers: int) -> list[str]:
    """The compression of each layer's attention: by name, by ratio, or two heavy, then alternating heavy and sparse.

    Published lists also have entries for draft layers, after those of the model.
    """
    named = [str(kind) for kind in fields.sequence("layer_types", most=MOST_LAYERS)]
    ratios = fields.sequence("compress_ratios", most=MOST_LAYERS)
    listed = named or [_RATIOS.get(ratio, str(ratio)) if isinstance(ratio, int) else str(ratio) for ratio in ratios]
    if not listed:
        return [_SPARSE if i >= 2 and i % 2 else _HEAVY for i in range(layers)]
    key = "layer_types" if named else "compress_ratios"
    if len(listed) < layers:
        fields.problems.append(f"{key} has {len(listed)} entries, expected one for each of {layers} layers")
    unknown = sorted(set(listed[:layers]) - set(_RATIOS.values()))
    if unknown:
        allowed = ", ".join(_RATIOS.values() if named else map(str, _RATIOS))
        fields.problems.append(f"{key} has an entry {unknown[0]}, which is not known; allowed: {allowed}")
    return [kind if kind in _RATIOS.values() else _WINDOW for kind in listed[:layers]]


def _attentions(fields: Fields, heads: int, head_dim: int) -> dict[str, Layer]:
    groups = size(fields, "o_groups", default=8)
    if (heads * head_dim) % groups:
        fields.problem("o_groups", f"does not divide the {heads * head_dim} outputs of all heads")
    window = CompressedAttention(
        heads=heads,
        head_dim=head_dim,
        q_rank=size(fields, "q_lora_rank"),
        groups=groups,
        out_rank=size(fields, "o_lora_rank"),
        window=size(fields, "sliding_window"),
    )
    indexer = Indexer(
        heads=size(fields, "index_n_heads"),
        head_dim=size(fields, "index_head_dim"),
        chosen=size(fields, "index_topk"),
    )
    sparse, heavy = _rate(fields, _SPARSE, "compress_rate_csa", 4), _rate(fields, _HEAVY, "compress_rate_hca", 128)
    return {
        _WINDOW: window,
        _SPARSE: replace(window, compression=Compression(ratio=sparse, indexer=indexer)),
        _HEAVY: replace(window, compression=Compression(ratio=heavy)),
    }


def _rate(fields: Fields, kind: str, legacy: str, default: int) -> int:
    rates = fields.raw("compress_rates", {})
    child = fields.child(rates if isinstance(rates, Mapping) else {}, "compress_rates", lenient=True)
    return size(fields, legacy, default=size(child, kind, default=default))


FAMILIES: dict[str, Reader] = {"deepseek_v4": deepseek_v4}
"""Readers by `model_type`."""
