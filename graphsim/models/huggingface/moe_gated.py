"""MoE models with a separately projected gate on the attention output: AFMoE (Trinity), Laguna, Beam."""

from __future__ import annotations

from collections.abc import Mapping
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
    per_layer,
    pre_norm,
    read_dims,
    size,
    unused,
    wrapped,
)
from graphsim.models.huggingface.llama import attention_of
from graphsim.models.huggingface.moe import experts_of, mlp_kinds, routed_and_shared, shared_mlp
from graphsim.models.layers.attention import AttentionNames, QkNorm
from graphsim.models.layers.mlp import Mlp
from graphsim.models.layers.moe import Moe, MoeNames

_BEFORE = ("input_layernorm", "pre_mlp_layernorm")
_AFTER = ("post_attention_layernorm", "post_mlp_layernorm")


def afmoe(fields: Fields, name: str) -> ModelConfig:
    """Norms before and after each sublayer; rotary positions in sliding layers only (transformers, `AfmoeConfig`)."""
    dims = read_dims(fields)
    every = size(fields, "global_attn_every_n_layers", default=4)
    window = size(fields, "sliding_window", default=0, least=0)
    kinds = per_layer(
        fields, "layer_types", dims.layers, (SLIDES, SEES_ALL), lambda i: SLIDES if (i + 1) % every else SEES_ALL
    )
    names = AttentionNames(gate="self_attn.gate_proj")
    full = replace(attention_of(fields, dims, qk=QkNorm.HEAD, rope=False), gated=True, adapt_gate=False, names=names)
    slides = replace(full, window=window, rope=True)
    moe = replace(routed_and_shared(fields, adapted=True, correction=True), names=MoeNames(router="mlp.router.gate"))
    dense, first = (
        Mlp(intermediate=dims.intermediate, linear=False),
        size(fields, "num_dense_layers", default=1, least=0),
    )
    blocks = [
        wrapped(slides if kind == SLIDES else full, dense if i < first else moe, before=_BEFORE, after=_AFTER)
        for i, kind in enumerate(kinds)
    ]
    return assemble(name, dims, blocks)


def laguna(fields: Fields, name: str) -> ModelConfig:
    """A gate per head or per element, layers with different numbers of heads (transformers, `LagunaConfig`)."""
    dims = read_dims(fields)
    if fields.flag("moe_apply_router_weight_on_input", False):
        fields.problem("moe_apply_router_weight_on_input", "is not supported; expected false")
    experts, chosen = experts_of(fields)
    moe = Moe(
        experts=experts,
        chosen=chosen,
        intermediate=size(fields, "moe_intermediate_size"),
        shared=shared_mlp(size(fields, "shared_expert_intermediate_size"), linear=True),
        correction=True,
    )
    dense = Mlp(intermediate=dims.intermediate)
    window = size(fields, "sliding_window", default=0, least=0)
    gates_heads = _gates_heads(fields)
    names = AttentionNames(gate="self_attn.g_proj")
    blocks = []
    types = per_layer(fields, "layer_types", dims.layers, (SLIDES, SEES_ALL), lambda i: SEES_ALL)
    for heads, kind, feed in zip(_heads(fields, dims), types, mlp_kinds(fields, dims.layers, 1), strict=True):
        usual = attention_of(fields, dims, window if kind == SLIDES else 0, qk=QkNorm.HEAD)
        attention = replace(usual, heads=heads, gated=True, gates_heads=gates_heads, names=names)
        blocks.append(pre_norm(attention, dense if feed == "dense" else moe))
    return assemble(name, dims, blocks)


def _gates_heads(fields: Fields) -> bool:
    gating = fields.raw("gating", True)
    if gating not in (True, "per-head", "per-element"):
        fields.problem("gating", "is not allowed; expected true, 'per-head' or 'per-element'")
    return bool(gating != "per-element")


def _heads(fields: Fields, dims: Dims) -> list[int]:
    """Query heads of each layer."""
    key = "num_attention_heads_per_layer"
    listed = list(fields.sequence(key, most=MOST_LAYERS)) or [dims.heads] * dims.layers
    counts = all(isinstance(entry, int) and entry > 0 and entry % dims.kv_heads == 0 for entry in listed)
    if len(listed) != dims.layers or not counts:
        wanted = f"multiples of the {dims.kv_heads} key heads"
        fields.problem(key, f"is not allowed; expected {wanted}, one for each of {dims.layers} layers")
        return [dims.heads] * dims.layers
    return listed


def beam(fields: Fields, name: str) -> ModelConfig:
    """Full attention without rotary positions in every sixth layer; dense first layers (transformers, `BeamConfig`)."""
    dims = read_dims(fields)
    last, window = dims.layers - 1, size(fields, "sliding_window", default=0, least=0)
    kinds = per_layer(
        fields,
        "layer_types",
        dims.layers,
        (SLIDES, SEES_ALL),
        lambda i: SLIDES if (i + 1) % 6 and i < last else SEES_ALL,
    )
    unused(fields, "mlp_only_layers", "decoder_sparse_step", "use_sliding_window", "max_window_layers")
    turns = fields.raw("rope_parameters", {})
    rotary = isinstance(turns, Mapping) and turns.get(SEES_ALL) is not None
    names = AttentionNames(gate="self_attn.gate_proj")
    usual = attention_of(fields, dims, qk=QkNorm.HEAD)
    slides = replace(usual, window=window, gated=True, gate_bias=True, adapt_gate=False, names=names)
    full = replace(slides, window=0, rope=rotary)
    experts, chosen = experts_of(fields)
    width = size(fields, "moe_intermediate_size")
    moe = Moe(experts=experts, chosen=chosen, intermediate=width, adapt_experts=True, adapt_router=True)
    dense = Mlp(intermediate=dims.intermediate, linear=False)
    before = ("input_layernorm", "pre_feedforward_layernorm")
    after = ("post_attention_layernorm", "post_feedforward_layernorm")
    blocks = [
        wrapped(slides if kind == SLIDES else full, dense if feed == "dense" else moe, before=before, after=after)
        for kind, feed in zip(kinds, mlp_kinds(fields, dims.layers, 3), strict=True)
    ]
    return assemble(name, dims, blocks)


FAMILIES: dict[str, Reader] = {"afmoe": afmoe, "laguna": laguna, "beam": beam}
"""Readers by `model_type`."""
