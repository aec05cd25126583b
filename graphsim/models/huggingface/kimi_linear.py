"""Kimi Linear and Kimi K3: Kimi delta attention in most layers, latent attention without positions in the others.

K3's language model has the same `model_type` but additional keys, which transformers 5.24 does not know: vLLM 0.33,
`models/kimi_k3/nvidia/model.py` and `kda.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from graphsim.files.reading import Fields
from graphsim.models.config import ModelConfig
from graphsim.models.huggingface.common import (
    MOST_LAYERS,
    Dims,
    Reader,
    assemble,
    kinds,
    pre_norm,
    read_dims,
    size,
    unused,
    with_drafts,
)
from graphsim.models.huggingface.moe import dense_then_sparse, experts_of, shared_mlp
from graphsim.models.layers.attention_residuals import CloseSums, DepthBlock, OpenSums
from graphsim.models.layers.base import Layer
from graphsim.models.layers.ends import Head, Stem
from graphsim.models.layers.kda import KdaNames, KimiDeltaAttention
from graphsim.models.layers.mla import LatentAttention
from graphsim.models.layers.mlp import Mlp
from graphsim.models.layers.moe import Moe, MoeNames
from graphsim.models.layers.norm import NormLayer

_THIRD = KdaNames(decay=("self_attn.f_a_proj", "self_attn.f_b_proj"))
_EXPERTS = MoeNames(
    router="block_sparse_moe.gate",
    gate_up="block_sparse_moe.experts.gate_up_proj",
    down="block_sparse_moe.experts.down_proj",
    experts=("w1", "w3", "w2"),
    latent=("block_sparse_moe.routed_expert_down_proj", "block_sparse_moe.routed_expert_up_proj"),
)


def kimi_linear(fields: Fields, name: str) -> ModelConfig:
    """Experts as in DeepSeek after either kind of attention; K3 if the config has one of its keys."""
    fields.data = {"first_k_dense_replace": 1, **fields.data}
    dims = read_dims(fields, floor=True, ties=False)
    if size(fields, "moe_layer_freq", default=1) != 1:
        fields.problem("moe_layer_freq", "is not allowed; expected 1: experts in every layer after the dense ones")
    if not fields.flag("mla_use_nope", True):
        fields.problem("mla_use_nope", "is not allowed; expected true: this latent attention has no positions")
    unused(fields, "head_dim", "qk_head_dim", "use_grouped_topk", "moe_router_activation_func")
    unused(_linear_section(fields), "gate_lower_bound")
    third = any(fields.raw(key) for key in ("attn_res_block_size", "routed_expert_hidden_size", "mla_use_output_gate"))
    gated = _linear_section(fields).flag("use_full_rank_gate", False)
    attentions = _attentions(fields, dims, _THIRD if third or gated else KdaNames())
    if third or gated:
        return with_drafts(_third(fields, dims, name, attentions), fields)
    return with_drafts(assemble(name, dims, dense_then_sparse(fields, dims, attentions, adapted=False)), fields)


def _attentions(fields: Fields, dims: Dims, names: KdaNames) -> list[Layer]:
    """The attention of each layer; K3's gates are as wide as their outputs."""
    wide = _linear_section(fields).flag("use_full_rank_gate", False)
    gates = replace(names, gate=("self_attn.g_proj",) if wide else ("self_attn.g_a_proj", "self_attn.g_b_proj"))
    delta, latent = replace(_delta(fields), names=gates), _latent(fields, dims)
    if fields.flag("mla_use_output_gate", False):
        latent = replace(latent, gate=latent.value_dim)
    return [latent if full else delta for full in _full(fields, dims.layers)]


def _third(fields: Fields, dims: Dims, name: str, attentions: list[Layer]) -> ModelConfig:
    """Kimi K3: experts in a latent space, and a residual with one sum per block of layers."""
    experts, chosen = experts_of(fields)
    width, beside = size(fields, "moe_intermediate_size"), size(fields, "num_shared_experts", default=0, least=0)
    normed = fields.flag("latent_moe_use_norm", False)
    moe = Moe(
        experts=experts,
        chosen=chosen,
        intermediate=width,
        latent=size(fields, "routed_expert_hidden_size", default=0, least=0),
        shared=shared_mlp(width * beside, "block_sparse_moe.shared_experts", linear=True),
        adapt_router=True,
        names=replace(_EXPERTS, latent_norm="block_sparse_moe.routed_expert_norm" if normed else ""),
    )
    first = size(fields, "first_k_dense_replace", least=0)
    feeds: list[Layer] = [Mlp(intermediate=dims.intermediate) if i < first else moe for i in range(dims.layers)]
    every = size(fields, "attn_res_block_size", default=0, least=0)
    if not every:
        return assemble(name, dims, [pre_norm(*parts) for parts in zip(attentions, feeds, strict=False)])
    slots = -(-dims.layers // every) + 1
    blocks: list[Layer] = [
        DepthBlock(attention=attention, mlp=feed, slots=slots, blocks=-(-i // every), opens=i % every == 0)
        for i, (attention, feed) in enumerate(zip(attentions, feeds, strict=False))
    ]
    head = Head(vocab_size=dims.vocab, norm=NormLayer(name="model.norm"), join=CloseSums(slots=slots))
    stem = Stem(vocab_size=dims.vocab, spread=OpenSums(slots=slots))
    return replace(assemble(name, dims, blocks, stem=stem, head=head), streams=slots)


def _linear_section(fields: Fields) -> Fields:
    section: Any = fields.raw("linear_attn_config", {})
    return fields.child(section if isinstance(section, Mapping) else {}, "linear_attn_config", lenient=True)


def _delta(fields: Fields) -> KimiDeltaAttention:
    section = _linear_section(fields)
    head_dim = size(section, "head_dim", default=size(fields, "linear_head_dim", default=128))
    return KimiDeltaAttention(
        heads=size(section, "num_heads", default=size(fields, "linear_num_heads", default=32)),
        head_dim=head_dim,
        taps=size(section, "short_conv_kernel_size", default=size(fields, "linear_conv_kernel_dim", default=4)),
        rank=head_dim,
    )


def _latent(fields: Fields, dims: Dims) -> LatentAttention:
    return LatentAttention(
        heads=dims.heads,
        q_rank=size(fields, "q_lora_rank", default=0, least=0),
        kv_rank=size(fields, "kv_lora_rank"),
        nope=size(fields, "qk_nope_head_dim"),
        rope=size(fields, "qk_rope_head_dim"),
        value_dim=size(fields, "v_head_dim"),
        bias=fields.flag("attention_bias", False),
        turns=False,
    )


def _full(fields: Fields, layers: int) -> list[bool]:
    """Which layers have latent attention: by name, by lists of indices from 1, or every fourth after the first."""
    types = kinds(fields, "layer_types", "full_attention", "linear_attention")
    section = _linear_section(fields)
    listed = {key: section.sequence(key, most=MOST_LAYERS) for key in ("full_attn_layers", "kda_layers")}
    if types:
        if len(types) != layers:
            fields.problems.append(f"layer_types has {len(types)} entries, expected one for each of {layers} layers")
        return [kind == "full_attention" for kind in types]
    if "full_attn_layers" in section and "kda_layers" in section:
        named = [i for key in listed for i in listed[key] if isinstance(i, int)]
        if sorted(named) != list(range(1, layers + 1)):
            text = (
                f"linear_attn_config: full_attn_layers and kda_layers do not name each of the layers 1 to {layers} once"
            )
            fields.problems.append(text)
        return [i + 1 in listed["full_attn_layers"] for i in range(layers)]
    return [i > 0 and i % 4 == 0 for i in range(layers)]


FAMILIES: dict[str, Reader] = {"kimi_linear": kimi_linear}
"""Readers by `model_type`."""
