"""MoE models with standard attention: Mixtral, Qwen, GLM-4.5, Granite; and helpers for other MoE models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from graphsim.files.reading import Fields
from graphsim.models.config import ModelConfig
from graphsim.models.huggingface.common import (
    Dims,
    Reader,
    assemble,
    indices,
    per_layer,
    pre_norm,
    read_dims,
    size,
    windows,
    with_drafts,
)
from graphsim.models.huggingface.llama import attention_of
from graphsim.models.layers.attention import QkNorm, SelfAttention
from graphsim.models.layers.base import Layer
from graphsim.models.layers.mlp import Mlp, MlpNames
from graphsim.models.layers.moe import Moe, MoeNames


def experts_of(fields: Fields) -> tuple[int, int]:
    """The number of experts, and the number chosen per token."""
    experts = size(fields, "num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts", most=100_000)
    chosen = size(
        fields,
        "num_experts_per_tok",
        "experts_per_token",
        "num_experts_per_token",
        "moe_k",
        "moe_top_k",
        "moe_topk",
        default=2,
    )
    if chosen > experts:
        fields.problems.append(f"num_experts_per_tok = {chosen} is not allowed; expected at most the {experts} experts")
    return experts, min(chosen, experts)


def shared_mlp(width: int, name: str = "mlp.shared_experts", linear: bool = False, bias: bool = False) -> Mlp | None:
    """The shared experts as one MLP; None if there are none."""
    if not width:
        return None
    names = MlpNames(gate=f"{name}.gate_proj", up=f"{name}.up_proj", down=f"{name}.down_proj")
    return Mlp(intermediate=width, names=names, linear=linear, bias=bias)


MIXTRAL_NAMES = MoeNames(experts=("w1", "w3", "w2"))
"""Names in Mixtral's own weights of an expert's gate, up and down."""


def mixtral_experts(fields: Fields, dims: Dims) -> Moe:
    """Experts with Mixtral's module names; PEFT's all-linear includes them and their router."""
    experts, chosen = experts_of(fields)
    return Moe(
        experts=experts,
        chosen=chosen,
        intermediate=dims.intermediate,
        adapt_experts=True,
        adapt_router=True,
        names=MIXTRAL_NAMES,
    )


def mixtral(fields: Fields, name: str) -> ModelConfig:
    """Mixtral: every layer has experts."""
    dims = read_dims(fields)
    moe = mixtral_experts(fields, dims)
    slides = windows(fields, dims.layers, lambda i: True)
    return assemble(name, dims, [pre_norm(attention_of(fields, dims, w, out_bias=False), moe) for w in slides])


def minimax_m2(fields: Fields, name: str) -> ModelConfig:
    """Mixtral with QK norm over the full projections, and learned corrections of the scores."""
    dims = read_dims(fields)
    moe = mixtral_experts(fields, dims)
    qk = QkNorm.FULL if fields.flag("use_qk_norm", True) else QkNorm.NONE
    if indices(fields, "attn_type_list") - {1}:
        fields.problem("attn_type_list", "is not allowed; expected 1, softmax attention, for each layer")
    fields.text("qk_norm_type", "per_layer", ["per_layer"])
    if not fields.flag("use_routing_bias", True):
        fields.problem("use_routing_bias", "is not allowed; expected true, as the class always has the correction")
    return assemble(name, dims, [pre_norm(attention_of(fields, dims, qk=qk), moe)] * dims.layers)


def qwen_moe(fields: Fields, name: str) -> ModelConfig:
    """Qwen 2 and 3: experts in most layers, in Qwen 2 with a gated shared one."""
    kind = str(fields.data.get("model_type"))
    dims = read_dims(fields, floor=kind.startswith("qwen3_omni"))
    second, adapted = kind == "qwen2_moe", kind in ("qwen3_moe", "qwen3_omni_moe_text")
    if not second and not fields.flag("use_qk_norm", True):
        fields.problem("use_qk_norm", "is not allowed; expected true, as the class always has the norms")
    experts, chosen = experts_of(fields)
    moe = Moe(
        experts=experts,
        chosen=chosen,
        intermediate=size(fields, "moe_intermediate_size"),
        shared=shared_mlp(size(fields, "shared_expert_intermediate_size"), "mlp.shared_expert", True)
        if second
        else None,
        shared_gate=second,
        adapt_experts=adapted,
        adapt_router=adapted,
    )
    dense = Mlp(intermediate=dims.intermediate, linear=not adapted)
    attention = SelfAttention(
        heads=dims.heads,
        kv_heads=dims.kv_heads,
        head_dim=dims.head_dim,
        qkv_bias=fields.flag("qkv_bias", True) if second else fields.flag("attention_bias", False),
        out_bias=not second and fields.flag("attention_bias", False),
        qk_norm=QkNorm.NONE if second else QkNorm.HEAD,
    )
    feeds = [moe if has else dense for has in sparse_layers(fields, dims.layers)]
    mixers = [replace(attention, window=window) for window in _qwen_windows(fields, dims.layers, second)]
    return assemble(name, dims, [pre_norm(mixer, feed) for mixer, feed in zip(mixers, feeds, strict=True)])


def _qwen_windows(fields: Fields, layers: int, second: bool) -> list[int]:
    """Each layer's window, if windows are used: in all layers of Qwen 3, in alternate ones of Qwen 2's first few."""
    first = size(fields, "max_window_layers", default=layers, least=0)
    slides = windows(fields, layers, lambda i: not second or (i % 2 == 0 and i < first))
    return slides if fields.flag("use_sliding_window", False) else [0] * layers


def sparse_layers(fields: Fields, layers: int) -> list[bool]:
    """Which layers have experts: every `decoder_sparse_step`-th except those in `mlp_only_layers`."""
    step = size(fields, "decoder_sparse_step", default=1)
    dense = indices(fields, "mlp_only_layers")
    return [(i + 1) % step == 0 and i not in dense for i in range(layers)]


def granitemoe(fields: Fields, name: str) -> ModelConfig:
    """Granite with experts, and a shared MLP if the config has one."""
    dims = read_dims(fields)
    block = pre_norm(attention_of(fields, dims), granite_experts(fields, dims))
    return assemble(name, dims, [block] * dims.layers)


def granite_experts(fields: Fields, dims: Dims) -> Moe:
    """Experts with Granite's module names, and the shared MLP."""
    experts, chosen = experts_of(fields)
    width = size(fields, "shared_intermediate_size", default=0, least=0)
    shared = None
    if width and fields.data.get("model_type") != "granitemoe":
        names = MlpNames(fused="shared_mlp.input_linear", down="shared_mlp.output_linear")
        shared = Mlp(intermediate=width, names=names)
    names_ = MoeNames(
        router="block_sparse_moe.router",
        gate_up="block_sparse_moe.experts.gate_up_proj",
        down="block_sparse_moe.experts.down_proj",
    )
    return Moe(experts=experts, chosen=chosen, intermediate=dims.intermediate, shared=shared, names=names_)


def glm4_moe(fields: Fields, name: str) -> ModelConfig:
    """Dense first layers, then routed and shared experts with corrected scores."""
    dims = read_dims(fields, floor=True)
    qk = QkNorm.HEAD if fields.flag("use_qk_norm", False) else QkNorm.NONE
    attention = attention_of(fields, dims, out_bias=False, qk=qk)
    return with_drafts(assemble(name, dims, dense_then_sparse(fields, dims, attention)), fields)


def dense_then_sparse(
    fields: Fields,
    dims: Dims,
    attention: Layer | Sequence[Layer],
    *,
    first: int = 0,
    adapted: bool = True,
    bias: bool = False,
    correction: bool = False,
) -> list[Layer]:
    """`first_k_dense_replace` dense layers, then experts with shared ones (DeepSeek's layout).

    attention: attention of all layers, or a list with that of each
    first: default number of dense layers
    adapted: whether PEFT's all-linear includes the experts and the router, but no dense or shared MLP
    bias: whether these MLPs have biases
    correction: whether the scores have learned corrections
    """
    feeds = dense_or_sparse(fields, dims, first=first, adapted=adapted, bias=bias, correction=correction)
    attentions = [attention] * dims.layers if isinstance(attention, Layer) else attention
    return [pre_norm(each, feed) for each, feed in zip(attentions, feeds, strict=False)]


def dense_or_sparse(
    fields: Fields,
    dims: Dims,
    *,
    first: int = 0,
    adapted: bool = True,
    bias: bool = False,
    correction: bool = False,
) -> list[Layer]:
    """The feed-forward part of each layer; see `dense_then_sparse`."""
    moe = routed_and_shared(fields, adapted=adapted, bias=bias, correction=correction)
    dense = Mlp(intermediate=dims.intermediate, bias=bias, linear=not adapted)
    start = size(fields, "first_k_dense_replace", default=first, least=0)
    return [dense if kind == "dense" else moe for kind in mlp_kinds(fields, dims.layers, start)]


def mlp_kinds(fields: Fields, layers: int, first: int) -> list[str]:
    """Whether each layer is dense or sparse: by `mlp_layer_types`, else the first few are dense."""
    return per_layer(
        fields, "mlp_layer_types", layers, ("dense", "sparse"), lambda i: "dense" if i < first else "sparse"
    )


def routed_and_shared(fields: Fields, *, adapted: bool, bias: bool = False, correction: bool = False) -> Moe:
    """Experts of `moe_intermediate_size`, and one MLP as wide as all shared ones; see `dense_then_sparse`."""
    experts, chosen = experts_of(fields)
    width = size(fields, "moe_intermediate_size")
    shared = size(fields, "n_shared_experts", "num_shared_experts", default=0, least=0, most=1000)
    return Moe(
        experts=experts,
        chosen=chosen,
        intermediate=width,
        shared=shared_mlp(width * shared, linear=not adapted, bias=bias),
        correction=correction,
        adapt_experts=adapted,
        adapt_router=adapted,
    )


FAMILIES: dict[str, Reader] = {
    "mixtral": mixtral,
    "minimax_m2": minimax_m2,
    "qwen2_moe": qwen_moe,
    "qwen3_moe": qwen_moe,
    "qwen3_omni_moe_text": qwen_moe,
    "granitemoe": granitemoe,
    "granitemoeshared": granitemoe,
    "glm4_moe": glm4_moe,
}
"""Readers by `model_type`."""
