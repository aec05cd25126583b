"""MoE models with shared experts: Hunyuan A13B, dots.llm1, DeepSeekMoE, Aria, Solar Open, Sarvam."""

from __future__ import annotations

from dataclasses import replace

from graphsim.files.reading import Fields
from graphsim.models.config import ModelConfig
from graphsim.models.huggingface.common import (
    Reader,
    assemble,
    pre_norm,
    read_dims,
    self_attention,
    size,
    unused,
    windows,
    with_drafts,
)
from graphsim.models.huggingface.llama import attention_of
from graphsim.models.huggingface.moe import dense_then_sparse, experts_of, routed_and_shared, shared_mlp
from graphsim.models.layers.attention import AttentionNames, QkNorm
from graphsim.models.layers.mlp import Mlp
from graphsim.models.layers.moe import Moe, MoeNames


def dots1(fields: Fields, name: str) -> ModelConfig:
    """Qwen 3's attention, experts as in DeepSeek; later layers have a sliding window if one is given."""
    dims = read_dims(fields)
    first = size(fields, "max_window_layers", default=dims.layers, least=0)
    slides = windows(fields, dims.layers, lambda i: i >= first)
    attentions = [attention_of(fields, dims, window, qk=QkNorm.HEAD) for window in slides]
    return assemble(name, dims, dense_then_sparse(fields, dims, attentions))


def hunyuan_moe(fields: Fields, name: str) -> ModelConfig:
    """Hunyuan A13B: QK norm per head after the rotary embedding, one shared MLP as wide as an expert."""
    one_of_all(fields, "num_experts", "moe_topk", "moe_intermediate_size", "num_shared_expert")
    dims = read_dims(fields)
    experts, chosen = experts_of(fields)
    for key, only in (("moe_intermediate_size", dims.intermediate), ("num_shared_expert", 1)):
        if size(fields, key, default=only, least=0) != only:
            fields.problem(key, f"is not allowed; expected {only}, which the class always uses")
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


def hunyuan3(fields: Fields, name: str) -> ModelConfig:
    """Hunyuan 3: QK norm per head, experts as in DeepSeek (transformers, `HYV3Config`)."""
    dims = read_dims(fields)
    attention = attention_of(fields, dims, qk=QkNorm.HEAD)
    if fields.raw("num_shared_experts", 1) == 0:
        fields.problem("num_shared_experts", "is not allowed; expected a whole number from 1")
    bias = fields.flag("mlp_bias", False)
    unused(fields, "qk_norm")
    blocks = dense_then_sparse(fields, dims, attention, first=1, adapted=False, bias=bias)
    return with_drafts(assemble(name, dims, blocks), fields)


def one_of_all(fields: Fields, *keys: str) -> None:
    """Replace lists that have the same number for every layer by that number."""
    for key in keys:
        listed = fields.sequence(key) if isinstance(fields.data.get(key), list) else []
        if listed:
            fields.data = {**fields.data, key: listed[0]}
            if any(entry != listed[0] for entry in listed):
                fields.problem(key, "differs between layers, which is not supported")


def deepseek_moe(fields: Fields, name: str) -> ModelConfig:
    """DeepSeekMoE (arXiv 2401.06066): Llama's attention, module names of the model's own code."""
    dims = read_dims(fields)
    if size(fields, "moe_layer_freq", default=1) != 1:
        fields.problem("moe_layer_freq", "is not supported; expected 1")
    attention = attention_of(fields, dims)
    moe = replace(routed_and_shared(fields, adapted=True), separate=True, adapt_router=False)
    shared = replace(moe.shared, linear=True) if moe.shared else None
    dense = Mlp(intermediate=dims.intermediate)
    first = size(fields, "first_k_dense_replace", default=0, least=0)
    feeds = [dense if i < first else replace(moe, shared=shared) for i in range(dims.layers)]
    return assemble(name, dims, [pre_norm(attention, feed) for feed in feeds])


def aria(fields: Fields, name: str) -> ModelConfig:
    """Aria's text model: Llama's attention, shared experts as wide as the routed ones (`AriaTextConfig`)."""
    dims = read_dims(fields)
    experts, chosen = experts_of(fields)
    shared = size(fields, "moe_num_shared_experts", default=2, least=0, most=1000)
    moe = Moe(
        experts=experts,
        chosen=chosen,
        intermediate=dims.intermediate,
        shared=shared_mlp(dims.intermediate * shared, linear=True, bias=fields.flag("mlp_bias", False)),
        names=MoeNames(router="mlp.router"),
    )
    return assemble(name, dims, [pre_norm(attention_of(fields, dims), moe)] * dims.layers)


def solar_open(fields: Fields, name: str) -> ModelConfig:
    """GLM-4.5 without dense layers (transformers, `SolarOpenConfig`)."""
    fields.data = {**fields.data, "intermediate_size": fields.data.get("moe_intermediate_size")}
    dims = read_dims(fields)
    block = pre_norm(attention_of(fields, dims, out_bias=False), routed_and_shared(fields, adapted=True))
    return assemble(name, dims, [block] * dims.layers)


def sarvam_moe(fields: Fields, name: str) -> ModelConfig:
    """GLM-4.5 with other config keys (transformers, `SarvamMoEConfig`)."""
    dims = read_dims(fields)
    bias = fields.flag("attention_bias", fields.flag("use_qkv_bias", False))
    qk = QkNorm.HEAD if fields.flag("use_qk_norm", True) else QkNorm.NONE
    attention = replace(attention_of(fields, dims, out_bias=False, qk=qk), qkv_bias=bias)
    return with_drafts(assemble(name, dims, dense_then_sparse(fields, dims, attention, first=1, adapted=False)), fields)


FAMILIES: dict[str, Reader] = {
    "hunyuan_v1_moe": hunyuan_moe,
    "dots1": dots1,
    "deepseek": deepseek_moe,
    "hy_v3": hunyuan3,
    "aria_text": aria,
    "solar_open": solar_open,
    "sarvam_moe": sarvam_moe,
}
"""Readers by `model_type`."""
