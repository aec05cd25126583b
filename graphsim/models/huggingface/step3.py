"""Step 3.5 and 3.7's language model: gated attention, more query heads in windows, shared and routed experts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from graphsim.files.reading import Fields
from graphsim.models.config import ModelConfig
from graphsim.models.huggingface.common import (
    Dims,
    Reader,
    assemble,
    kinds,
    layer_config,
    pre_norm,
    read_dims,
    self_attention,
    size,
    unused,
    with_drafts,
)
from graphsim.models.huggingface.moe import experts_of
from graphsim.models.layers.attention import AttentionNames, QkNorm, SelfAttention
from graphsim.models.layers.base import Layer
from graphsim.models.layers.mlp import Mlp, MlpNames
from graphsim.models.layers.moe import Moe

_SHARED = MlpNames(**{part: f"mlp.shared_experts.{part}_proj" for part in ("gate", "up", "down")})


def step3(fields: Fields, name: str) -> ModelConfig:
    """Lists that include draft layers are truncated to the model's layers (transformers 5.24, `Step3p7TextConfig`)."""
    groups = fields.raw("num_attention_groups", fields.raw("num_key_value_heads"))
    fields.data = {**fields.data, "num_key_value_heads": groups, "num_local_experts": None}
    dims = read_dims(fields)
    experts, chosen = experts_of(fields)
    bias = fields.flag("mlp_bias", False)
    moe = Moe(
        experts=experts,
        chosen=chosen,
        intermediate=size(fields, "moe_intermediate_size"),
        shared=Mlp(
            intermediate=size(fields, "share_expert_dims", "share_expert_dim", default=1280), bias=bias, names=_SHARED
        ),
    )
    dense = Mlp(intermediate=dims.intermediate, bias=bias)
    sparse = _sparse(fields, dims.layers)
    blocks: list[Layer] = [
        pre_norm(attention, moe if has else dense)
        for attention, has in zip(_attentions(fields, dims), sparse, strict=False)
    ]
    unused(fields, "query_pre_attn_scalar", "moe_router_scaling_factor", "swiglu_limits", "swiglu_limits_shared")
    unused(fields, "mtp_layer_types", "mtp_mlp_layer_types", "partial_rotary_factors")
    return with_drafts(assemble(name, dims, blocks), fields)


def _attentions(fields: Fields, dims: Dims) -> list[SelfAttention]:
    gating = fields.raw("gating", True)
    full = replace(
        self_attention(dims, bias=fields.flag("attention_bias", False), qk=QkNorm.HEAD),
        gated=True,
        gates_heads=gating in (True, "per-head"),
        names=AttentionNames(gate="self_attn.g_proj"),
    )
    other: Any = fields.raw("attention_other_setting", {})
    section = fields.child(other if isinstance(other, Mapping) else {}, "attention_other_setting", lenient=True)
    heads = size(
        fields, "num_sliding_attention_heads", default=size(section, "num_attention_heads", default=dims.heads)
    )
    window = size(fields, "sliding_window", default=0, least=0)
    types = kinds(fields, "layer_types", "full_attention", "sliding_attention") or ["full_attention"] * dims.layers
    if len(types) < dims.layers:
        fields.problems.append(f"layer_types has {len(types)} entries, expected one for each of {dims.layers} layers")
    alone = "per_layer_config" in fields  # overrides all other keys (`Step3p7TextConfig`)
    made = []
    for i, kind in enumerate(types[: dims.layers]):
        slides = kind == "sliding_attention"
        layer = layer_config(fields, i, "num_attention_heads")
        own = size(layer, "num_attention_heads", default=heads if slides and not alone else dims.heads)
        if own % dims.kv_heads:
            fields.problems.append(
                f"layer {i} has {own} attention heads, which is not a multiple of the {dims.kv_heads} key heads"
            )
        made.append(replace(full, heads=own, window=window if slides else 0))
    return made


def _sparse(fields: Fields, layers: int) -> list[bool]:
    """Which layers have experts: by name, by a list of indices (possibly as text), or all from the fourth."""
    named = kinds(fields, "mlp_layer_types", "dense", "sparse")
    listed = fields.raw("moe_layers_enum")
    if named:
        if len(named) < layers:
            fields.problems.append(
                f"mlp_layer_types has {len(named)} entries, expected one for each of {layers} layers"
            )
        return [kind == "sparse" for kind in named[:layers]]
    entries = listed.split(",") if isinstance(listed, str) else listed
    if entries is None:
        return [i >= 3 for i in range(layers)]
    if not isinstance(entries, list) or not all(str(entry).strip().isdecimal() for entry in entries):
        fields.problem(
            "moe_layers_enum", "is not allowed; expected indices of layers, as a list or with commas between"
        )
        return [False] * layers
    chosen = {int(str(entry)) for entry in entries}
    return [i in chosen for i in range(layers)]


FAMILIES: dict[str, Reader] = {"step3p5": step3}
"""Readers by `model_type`."""
