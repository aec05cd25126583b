"""MoE models with special attention, norms or names: gpt-oss, OLMoE, Phi-3.5-MoE, Ernie 4.5, Llama 4, DBRX."""

from __future__ import annotations

from dataclasses import replace

from graphsim.files.reading import Fields
from graphsim.models.config import ModelConfig
from graphsim.models.huggingface.common import (
    SEES_ALL,
    Reader,
    assemble,
    indices,
    per_layer,
    pre_norm,
    read_dims,
    self_attention,
    size,
    unused,
    windows,
    wrapped,
)
from graphsim.models.huggingface.llama import attention_of
from graphsim.models.huggingface.moe import experts_of, mlp_kinds, shared_mlp
from graphsim.models.layers.attention import AttentionNames, QkNorm, SelfAttention
from graphsim.models.layers.base import Layer
from graphsim.models.layers.ends import Head, Stem
from graphsim.models.layers.mlp import Mlp, MlpNames
from graphsim.models.layers.modality_experts import ModalityExperts
from graphsim.models.layers.moe import Moe, MoeNames
from graphsim.models.layers.norm import NormLayer


def gpt_oss(fields: Fields, name: str) -> ModelConfig:
    """Biases everywhere, sinks in the softmax, a sliding window in every other layer."""
    dims = read_dims(fields)
    experts, chosen = experts_of(fields)
    names = MoeNames(router="mlp.router")
    moe = Moe(experts=experts, chosen=chosen, intermediate=dims.intermediate, router_bias=True, bias=True, names=names)
    bias = fields.flag("attention_bias", True)
    blocks: list[Layer] = []
    for window in windows(fields, dims.layers, lambda i: i % 2 == 0):
        attention = SelfAttention(
            heads=dims.heads,
            kv_heads=dims.kv_heads,
            head_dim=dims.head_dim,
            window=window,
            qkv_bias=bias,
            out_bias=bias,
            sinks=True,
        )
        blocks.append(pre_norm(attention, moe))
    return assemble(name, dims, blocks)


def olmoe(fields: Fields, name: str) -> ModelConfig:
    """QK norm over the full projections, experts in every layer."""
    dims = read_dims(fields)
    experts, chosen = experts_of(fields)
    moe = Moe(experts=experts, chosen=chosen, intermediate=dims.intermediate, adapt_experts=True, adapt_router=True)
    return assemble(name, dims, [pre_norm(attention_of(fields, dims, qk=QkNorm.FULL), moe)] * dims.layers)


def flex_olmo(fields: Fields, name: str) -> ModelConfig:
    """OLMoE with norms after its sublayers instead of before them, as in OLMo 2."""
    dims = read_dims(fields)
    experts, chosen = experts_of(fields)
    moe = Moe(experts=experts, chosen=chosen, intermediate=dims.intermediate, adapt_experts=True, adapt_router=True)
    after = ("post_attention_layernorm", "post_feedforward_layernorm")
    block = wrapped(attention_of(fields, dims, qk=QkNorm.FULL), moe, after=after)
    return assemble(name, dims, [block] * dims.layers)


def phimoe(fields: Fields, name: str) -> ModelConfig:
    """LayerNorm, biases in attention, an optional bias on the head."""
    dims = read_dims(fields)
    experts, chosen = experts_of(fields)
    names = MoeNames(router="mlp.router")
    moe = Moe(experts=experts, chosen=chosen, intermediate=dims.intermediate, adapt_router=True, names=names)
    head = Head(
        vocab_size=dims.vocab,
        tied=dims.tied,
        bias=fields.flag("lm_head_bias", False),
        norm=NormLayer(name="model.norm", kind="layer"),
    )
    slides = windows(fields, dims.layers, lambda i: True)
    blocks = [pre_norm(attention_of(fields, dims, w), moe, "layer") for w in slides]
    return assemble(name, dims, blocks, head=head)


def ernie_moe(fields: Fields, name: str) -> ModelConfig:
    """Ernie 4.5: dense first layers, then routed and shared experts with learned corrections."""
    dims = read_dims(fields, tied=True)
    experts, chosen = experts_of(fields)
    width, bias = size(fields, "moe_intermediate_size"), fields.flag("use_bias", False)
    moe = Moe(
        experts=experts,
        chosen=chosen,
        intermediate=width,
        shared=shared_mlp(width * size(fields, "moe_num_shared_experts", default=0, least=0, most=1000), bias=bias),
        correction=True,
        adapt_experts=True,
        adapt_router=True,
    )
    attention = self_attention(dims, bias=bias)
    start = size(fields, "moe_layer_start_index", default=1, least=0)
    last = size(fields, "moe_layer_end_index", default=-1, least=-1)
    end = dims.layers - 1 if last < 0 else last
    step = size(fields, "moe_layer_interval", default=1)
    dense = Mlp(intermediate=dims.intermediate, bias=bias, linear=False)
    sparse = [(i + 1) % step == 0 and start <= i <= end for i in range(dims.layers)]
    head = Head(vocab_size=dims.vocab, tied=dims.tied, bias=bias, norm=NormLayer(name="model.norm"))
    return assemble(name, dims, [pre_norm(attention, moe if has else dense) for has in sparse], head=head)


def ernie_vl(fields: Fields, name: str) -> ModelConfig:
    """Ernie 4.5 with separate experts for images (transformers, `Ernie4_5_VLMoeTextConfig`)."""
    dims = read_dims(fields, tied=True)
    experts, chosen = experts_of(fields)
    widths = [width for width in fields.sequence("moe_intermediate_size") if isinstance(width, int) and width > 0]
    if len(widths) != 2:
        fields.problem("moe_intermediate_size", "is not allowed; expected two widths, for text and for images")
        widths = [1, 1]
    bias = fields.flag("use_bias", False)
    text, idle = (
        Moe(experts=experts, chosen=chosen, intermediate=width, correction=True, names=_modality(kind))
        for kind, width in zip(("text", "vision"), widths, strict=True)
    )
    count = size(fields, "moe_num_shared_experts", default=0, least=0, most=1000)
    sparse = ModalityExperts(text=text, idle=idle, shared=shared_mlp(widths[0] * count, linear=True, bias=bias))
    dense = Mlp(intermediate=dims.intermediate, bias=bias)
    kinds = mlp_kinds(fields, dims.layers, 1)
    attention = self_attention(dims, bias=bias)
    return assemble(name, dims, [pre_norm(attention, sparse if kind == "sparse" else dense) for kind in kinds])


def _modality(kind: str) -> MoeNames:
    module = f"mlp.{kind}_moe"
    return MoeNames(
        router=f"{module}.gate", gate_up=f"{module}.experts.gate_up_proj", down=f"{module}.experts.down_proj"
    )


CHUNKED = "chunked_attention"
"""Name in Llama 4's `layer_types` of attention within chunks of the prompt."""


def llama4(fields: Fields, name: str) -> ModelConfig:
    """Experts with a shared one, interleaved with dense layers; chunked attention in most layers."""
    dims = read_dims(fields)
    experts, chosen = experts_of(fields)
    shared = MlpNames(**{part: f"feed_forward.shared_expert.{part}_proj" for part in ("gate", "up", "down")})
    moe = Moe(
        experts=experts,
        chosen=chosen,
        intermediate=dims.intermediate,
        shared=Mlp(intermediate=dims.intermediate, names=shared),
        adapt_router=True,
        names=MoeNames(
            router="feed_forward.router",
            gate_up="feed_forward.experts.gate_up_proj",
            down="feed_forward.experts.down_proj",
        ),
    )
    own = MlpNames(**{part: f"feed_forward.{part}_proj" for part in ("gate", "up", "down")})
    dense = Mlp(intermediate=size(fields, "intermediate_size_mlp", default=dims.intermediate), names=own)
    step = size(fields, "interleave_moe_layer_step", default=1)
    listed = indices(fields, "moe_layers")
    sparse = listed if "moe_layers" in fields else list(range(step - 1, dims.layers, step))
    chunk = size(fields, "attention_chunk_size", default=8192)
    rotary = [bool(flag) for flag in fields.sequence("no_rope_layers")]
    every = size(fields, "no_rope_layer_interval", default=4)
    if len(rotary) != dims.layers:
        rotary = [(i + 1) % every != 0 for i in range(dims.layers)]
    chunked = per_layer(
        fields, "layer_types", dims.layers, (CHUNKED, SEES_ALL), lambda i: CHUNKED if rotary[i] else SEES_ALL
    )
    full = attention_of(fields, dims, rope=False)
    qk = QkNorm.HEAD if fields.flag("use_qk_norm", True) else QkNorm.NONE
    turned = replace(full, rope=True, qk_norm=qk, norm_vectors=0)
    blocks: list[Layer] = []
    for i, kind in enumerate(chunked):
        attention = replace(turned if rotary[i] else full, window=chunk if kind == CHUNKED else 0)
        blocks.append(pre_norm(attention, moe if i in sparse else dense))
    return assemble(name, dims, blocks)


def dbrx(fields: Fields, name: str) -> ModelConfig:
    """Fused qkv, LayerNorm without bias, experts in every layer."""
    attn, ffn = fields.mapping("attn_config", lenient=True), fields.mapping("ffn_config", lenient=True)
    width = size(ffn, "ffn_hidden_size", default=3584)
    unused(ffn, "hidden_size")
    fields.data = {"num_key_value_heads": None, **fields.data, "intermediate_size": width}
    dims = read_dims(fields, kv_heads=size(attn, "kv_n_heads", default=1))
    experts = size(ffn, "moe_num_experts", default=4)
    attention = self_attention(
        dims, names=AttentionNames(fused="norm_attn_norm.attn.Wqkv", o="norm_attn_norm.attn.out_proj")
    )
    moe = Moe(
        experts=experts,
        chosen=min(size(ffn, "moe_top_k", default=1), experts),
        intermediate=width,
        adapt_router=True,
        names=MoeNames(router="ffn.router.layer", gate_up="ffn.experts.mlp.w1_v1", down="ffn.experts.mlp.w2"),
    )
    kind = "layer_no_bias"
    norms = ("norm_attn_norm.norm_1", "norm_attn_norm.norm_2")
    return assemble(
        name,
        dims,
        [pre_norm(attention, moe, kind, norms)] * dims.layers,
        stem=Stem(vocab_size=dims.vocab, module="transformer.wte"),
        head=Head(vocab_size=dims.vocab, tied=dims.tied, norm=NormLayer(name="transformer.norm_f", kind=kind)),
        prefix="transformer.blocks.{}.",
    )


FAMILIES: dict[str, Reader] = {
    "gpt_oss": gpt_oss,
    "olmoe": olmoe,
    "flex_olmo": flex_olmo,
    "phimoe": phimoe,
    "ernie4_5_moe": ernie_moe,
    "ernie4_5_vl_moe_text": ernie_vl,
    "llama4_text": llama4,
    "llama4": llama4,
    "dbrx": dbrx,
}
"""Readers by `model_type`."""
