"""MoE models with sliding windows in most layers: Command A+, K-EXAONE, Mellum, Flint, Kolibri, Granite SWA."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from graphsim.files.reading import Fields
from graphsim.models.config import ModelConfig
from graphsim.models.huggingface.common import (
    MOST_LAYERS,
    SEES_ALL,
    SLIDES,
    Dims,
    Reader,
    assemble,
    parallel,
    per_layer,
    pre_norm,
    read_dims,
    size,
    sliding_pattern,
    unused,
    with_drafts,
    wrapped,
)
from graphsim.models.huggingface.llama import attention_of
from graphsim.models.huggingface.moe import (
    dense_then_sparse,
    experts_of,
    granite_experts,
    mlp_kinds,
    shared_mlp,
    sparse_layers,
)
from graphsim.models.layers.attention import QkNorm, SelfAttention
from graphsim.models.layers.base import Layer
from graphsim.models.layers.mlp import Mlp
from graphsim.models.layers.moe import Moe
from graphsim.models.layers.norm import NormLayer


def attentions(
    fields: Fields, dims: Dims, fallback: Callable[[int], bool], *, nope: bool, qk: QkNorm, sinks: bool = False
) -> list[SelfAttention]:
    """Each layer's attention, full or sliding by `layer_types`.

    fallback: without `layer_types`, whether layer i has a sliding window
    nope: whether full-attention layers have no rotary positions
    """
    window = size(fields, "sliding_window", default=0, least=0)
    full = attention_of(fields, dims, qk=qk, rope=not nope, sinks=sinks)
    slides = attention_of(fields, dims, window, qk=qk, sinks=sinks)
    kinds = per_layer(
        fields, "layer_types", dims.layers, (SLIDES, SEES_ALL), lambda i: SLIDES if fallback(i) else SEES_ALL
    )
    return [slides if kind == SLIDES else full for kind in kinds]


def cohere2_moe(fields: Fields, name: str) -> ModelConfig:
    """Cohere 2 with experts in parallel with attention, and dense first layers (transformers, `Cohere2MoeConfig`)."""
    dims = read_dims(fields, tied=True)
    first = size(fields, "first_k_dense_replace", default=0, least=0)
    early, late = (size(fields, f"{key}sliding_window_pattern", default=default) for key, default in _COHERE)
    slides = lambda i: (i + 1) % early != 0 if i < first else (i - first + 1) % late != 0  # noqa: E731
    kinds = mlp_kinds(fields, dims.layers, first)
    experts, chosen = experts_of(fields)
    shared = size(fields, "num_shared_experts", default=0, least=0, most=1000)
    moe = Moe(
        experts=experts,
        chosen=chosen,
        intermediate=dims.intermediate,
        shared=shared_mlp(dims.intermediate * shared),
        adapt_experts=True,
        adapt_router=True,
    )
    width = size(fields, "prefix_dense_intermediate_size", default=dims.intermediate)
    dense = Mlp(intermediate=width, linear=False)
    style = "rms" if fields.number("rms_norm_eps", 0.0) else "layer_no_bias"
    norm = NormLayer(name="input_layernorm", kind=style)
    turned = attention_of(fields, dims)  # dense layers may be rotary with full attention
    blocks = []
    for attention, kind in zip(attentions(fields, dims, slides, nope=True, qk=QkNorm.NONE), kinds, strict=True):
        forced = kind == "dense" and early == 1 and not attention.window
        blocks.append(parallel(turned if forced else attention, dense if kind == "dense" else moe, norm=norm))
    return assemble(name, dims, blocks, norm=NormLayer(name="model.norm", kind=style))


_COHERE = (("prefix_dense_", 1), ("", 4))


def exaone_moe(fields: Fields, name: str) -> ModelConfig:
    """EXAONE 4's attention, experts as in DeepSeek, norms before sublayers (`ExaoneMoeConfig`)."""
    dims = read_dims(fields)
    slides = sliding_pattern(fields, dims.layers)
    mixers = attentions(fields, dims, slides, nope="sliding_window" in fields, qk=QkNorm.HEAD)
    return with_drafts(assemble(name, dims, dense_then_sparse(fields, dims, mixers, first=1)), fields)


def mellum(fields: Fields, name: str) -> ModelConfig:
    """Qwen 3 with experts in the layers given by `mlp_layer_types` (transformers, `MellumConfig`)."""
    dims = read_dims(fields)
    experts, chosen = experts_of(fields)
    width = size(fields, "moe_intermediate_size")
    moe = Moe(experts=experts, chosen=chosen, intermediate=width, adapt_experts=True, adapt_router=True)
    dense = Mlp(intermediate=dims.intermediate, linear=False)
    feeds = [dense if kind == "dense" else moe for kind in mlp_kinds(fields, dims.layers, 0)]
    mixers = attentions(fields, dims, lambda i: False, nope=False, qk=QkNorm.HEAD)
    unused(fields, "mtp_layer_types", "mtp_mlp_layer_types")
    return with_drafts(assemble(name, dims, _pairs(mixers, feeds)), fields)


def flint(fields: Fields, name: str) -> ModelConfig:
    """Sinks in the softmax, an ungated shared expert, dense first layers (transformers, `FlintConfig`)."""
    dims = read_dims(fields)
    last = dims.layers - 1
    mixers = attentions(
        fields, dims, lambda i: not (i < 2 or i % 4 == 1 or i == last), nope=True, qk=QkNorm.HEAD, sinks=True
    )
    moe = _with_shared(fields, "mlp.shared_expert")
    dense = Mlp(intermediate=dims.intermediate)
    if "mlp_only_layers" not in fields:
        fields.data = {**fields.data, "mlp_only_layers": [0, 1]}
    return assemble(name, dims, _pairs(mixers, [moe if has else dense for has in sparse_layers(fields, dims.layers)]))


def kolibri(fields: Fields, name: str) -> ModelConfig:
    """Norms before and after each sublayer, experts in every layer, no biases (transformers, `Kolibri1Config`)."""
    width = fields.data.get("moe_intermediate_size")
    fields.data = {**fields.data, "intermediate_size": width, "attention_bias": False}
    dims = read_dims(fields)
    moe = _with_shared(fields, "mlp.shared_experts")
    before = ("input_layernorm", "post_attention_layernorm")
    after = ("post_self_attn_layernorm", "post_mlp_layernorm")
    mixers = attentions(fields, dims, lambda i: (i + 1) % 5 != 0, nope="sliding_window" in fields, qk=QkNorm.HEAD)
    return assemble(name, dims, [wrapped(mixer, moe, before=before, after=after) for mixer in mixers])


def _with_shared(fields: Fields, module: str) -> Moe:
    """Experts, and a shared one with a separate width."""
    experts, chosen = experts_of(fields)
    return Moe(
        experts=experts,
        chosen=chosen,
        intermediate=size(fields, "moe_intermediate_size"),
        shared=shared_mlp(size(fields, "shared_expert_intermediate_size"), module, linear=True),
    )


def granite_swa(fields: Fields, name: str) -> ModelConfig:
    """Granite with sinks in the softmax, windows in three of four layers, optional experts (`GraniteSWAConfig`)."""
    mixture = fields.data.get("model_type") == "granitemoe_swa"
    dims = read_dims(fields, tied=not mixture)
    mixers = attentions(fields, dims, lambda i: i % 4 != 0, nope=False, qk=QkNorm.NONE, sinks=True)
    thetas = fields.sequence("layer_rope_theta", most=MOST_LAYERS) or [1.0] * dims.layers
    if len(thetas) != dims.layers:
        fields.problem("layer_rope_theta", f"is not allowed; expected one entry for each of {dims.layers} layers")
        thetas = [1.0] * dims.layers
    turned = [replace(mixer, rope=bool(theta)) for mixer, theta in zip(mixers, thetas, strict=True)]
    feed: Layer = (
        granite_experts(fields, dims)
        if mixture
        else Mlp(intermediate=dims.intermediate, bias=fields.flag("mlp_bias", False))
    )
    return assemble(name, dims, _pairs(turned, [feed] * dims.layers))


def _pairs(mixers: Sequence[Layer], feeds: Sequence[Layer]) -> list[Layer]:
    return [pre_norm(mixer, feed) for mixer, feed in zip(mixers, feeds, strict=True)]


FAMILIES: dict[str, Reader] = {
    "cohere2_moe": cohere2_moe,
    "exaone_moe": exaone_moe,
    "mellum": mellum,
    "flint": flint,
    "kolibri1": kolibri,
    "granite_swa": granite_swa,
    "granitemoe_swa": granite_swa,
}
"""Readers by `model_type`."""
