"""Mixtures with shared experts beside attention that norms its heads: Hunyuan A13B, dots.llm1."""

from __future__ import annotations

from graphsim.files.reading import Fields
from graphsim.models.config import ModelConfig
from graphsim.models.huggingface.common import Reader, assemble, pre_norm, read_dims, self_attention, size, windows
from graphsim.models.huggingface.llama import attention_of
from graphsim.models.huggingface.moe import dense_then_sparse, experts_of, shared_mlp
from graphsim.models.layers.attention import AttentionNames, QkNorm
from graphsim.models.layers.moe import Moe, MoeNames


def dots1(fields: Fields, name: str) -> ModelConfig:
    """DeepSeek's layout of experts behind Qwen 3's attention; later layers slide where a window is given."""
    dims = read_dims(fields)
    first = size(fields, "max_window_layers", default=dims.layers, least=0)
    slides = windows(fields, dims.layers, lambda i: i >= first)
    attentions = [attention_of(fields, dims, window, qk=QkNorm.HEAD) for window in slides]
    return assemble(name, dims, dense_then_sparse(fields, dims, attentions))


def hunyuan_moe(fields: Fields, name: str) -> ModelConfig:
    """Hunyuan A13B: norms on heads behind the rotary embedding, one shared MLP as wide as an expert."""
    for key in ("num_experts", "moe_topk"):
        listed = fields.sequence(key) if isinstance(fields.data.get(key), list) else []
        if listed:
            fields.data = {**fields.data, key: listed[0]}
            if any(entry != listed[0] for entry in listed):
                fields.problem(key, "differs between layers, which is not supported")
    dims = read_dims(fields)
    experts, chosen = experts_of(fields)
    moe = Moe(
        experts=experts,
        chosen=chosen,
        intermediate=dims.intermediate,
        shared=shared_mlp(dims.intermediate, "mlp.shared_mlp"),
        adapt_experts=True,
        adapt_router=True,
        names=MoeNames(router="mlp.gate.wg"),
    )
    bias = fields.flag("attention_bias", False)
    attention = self_attention(
        dims,
        bias=bias,
        qk=QkNorm.HEAD,
        names=AttentionNames(q_norm="self_attn.query_layernorm", k_norm="self_attn.key_layernorm"),
    )
    return assemble(name, dims, [pre_norm(attention, moe)] * dims.layers)


FAMILIES: dict[str, Reader] = {"hunyuan_v1_moe": hunyuan_moe, "dots1": dots1}
"""Readers by `model_type`."""
