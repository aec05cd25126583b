"""Ling and Ring, which come with their own code: Ling 1 (Lite, Plus) and 2.0 (mini, flash, 1T)."""

from __future__ import annotations

from graphsim.files.reading import Fields
from graphsim.models.config import ModelConfig
from graphsim.models.huggingface.common import Dims, Reader, assemble, pre_norm, read_dims, size, unused, with_drafts
from graphsim.models.huggingface.moe import experts_of, mlp_kinds, shared_mlp
from graphsim.models.layers.attention import AttentionNames, QkNorm, SelfAttention
from graphsim.models.layers.ends import Stem
from graphsim.models.layers.mlp import Mlp
from graphsim.models.layers.moe import Moe

_NAMES = AttentionNames(
    fused="attention.query_key_value",
    o="attention.dense",
    q_norm="attention.query_layernorm",
    k_norm="attention.key_layernorm",
)

_UNUSED = (
    *("moe_router_enable_expert_bias", "moe_router_enable_routed_scaling", "score_function", "router_dtype"),
    *("norm_head", "norm_softmax", "embedding_dropout", "output_dropout"),
)


def ling(fields: Fields, name: str) -> ModelConfig:
    """Fused qkv, experts as in DeepSeek (inclusionAI/Ling-V2, `modeling_bailing_moe_v2.py`)."""
    dims = read_dims(fields)
    unused(
        fields, "moe_router_enable_expert_bias", "moe_router_enable_routed_scaling", "score_function", "router_dtype"
    )
    unused(fields, "norm_head", "norm_softmax", "embedding_dropout", "output_dropout")
    bias = fields.flag("use_bias", False)
    attention = SelfAttention(
        heads=dims.heads,
        kv_heads=dims.kv_heads,
        head_dim=dims.head_dim,
        qkv_bias=bias or fields.flag("use_qkv_bias", False),
        out_bias=bias,
        qk_norm=QkNorm.HEAD if fields.flag("use_qk_norm", False) else QkNorm.NONE,
        names=_NAMES,
    )
    moe, dense = _experts(fields, bias), Mlp(intermediate=dims.intermediate, bias=bias)
    first = size(fields, "first_k_dense_replace", default=0, least=0)
    blocks = [pre_norm(attention, dense if kind == "dense" else moe) for kind in mlp_kinds(fields, dims.layers, first)]
    return with_drafts(assemble(name, dims, blocks, stem=_stem(dims)), fields)


def _experts(fields: Fields, bias: bool) -> Moe:
    experts, chosen = experts_of(fields)
    width = size(fields, "moe_intermediate_size")
    shared = size(fields, "moe_shared_expert_intermediate_size", default=width)
    count = size(fields, "num_shared_experts", default=0, least=0, most=1000)
    if count and not fields.flag("moe_router_enable_shared_expert", True):
        fields.problem("moe_router_enable_shared_expert", "is not supported; expected true")
    return Moe(
        experts=experts,
        chosen=chosen,
        intermediate=width,
        shared=shared_mlp(shared * count, linear=True, bias=bias),
        bias=bias,
        adapt_experts=True,
        separate=True,
    )


def _stem(dims: Dims) -> Stem:
    return Stem(vocab_size=dims.vocab, module="model.word_embeddings")


FAMILIES: dict[str, Reader] = {"bailing_moe": ling, "bailing_moe_v2": ling}
"""Readers by `model_type`."""
