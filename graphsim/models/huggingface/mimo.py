"""MiMo-V2: windowed layers with sinks and more key heads, some full-attention layers, values narrower than keys."""

from __future__ import annotations

from dataclasses import replace

from graphsim.files.reading import Fields
from graphsim.models.config import ModelConfig
from graphsim.models.huggingface.common import (
    MOST_LAYERS,
    Reader,
    assemble,
    kinds,
    read_dims,
    size,
    unused,
    with_drafts,
)
from graphsim.models.huggingface.moe import dense_then_sparse
from graphsim.models.layers.attention import SelfAttention
from graphsim.models.layers.base import Layer


def mimo_v2(fields: Fields, name: str) -> ModelConfig:
    """A dense first layer, then experts without shared ones.

    In transformers 5.24, windowed layers have twice the key heads; published configs state all of their sizes.
    """
    fields.data = {"first_k_dense_replace": 1, **fields.data, **_published(fields)}
    dims = read_dims(fields, floor=True)
    bias = fields.flag("attention_bias", False)
    full = SelfAttention(
        heads=dims.heads,
        kv_heads=dims.kv_heads,
        head_dim=dims.head_dim,
        value_dim=size(fields, "v_head_dim"),
        qkv_bias=bias,
    )
    for key, has in (("add_full_attention_sink_bias", False), ("add_swa_attention_sink_bias", True)):
        if fields.flag(key, has) is not has:
            fields.problem(key, f"is not simulated; expected {str(has).lower()}: sinks where there are windows")
    before = size(fields, "sliding_window_size", default=0, least=0)
    window = size(fields, "sliding_window", default=129)
    windowed = replace(
        full,
        kv_heads=2 * dims.kv_heads,
        window=before + 1 if before else window,
        sinks=True,
    )
    ours = (windowed.heads, windowed.kv_heads, windowed.head_dim, windowed.value_dim)
    keys = ("swa_num_attention_heads", "swa_num_key_value_heads", "swa_head_dim", "swa_v_head_dim")
    for key, expected in zip(keys, ours, strict=True):
        if size(fields, key, default=expected) != expected:
            fields.problem(key, f"is not simulated; expected {expected}: transformers doubles the key heads alone")
    if windowed.heads % windowed.kv_heads:
        text = f"swa_num_key_value_heads = {windowed.kv_heads} does not divide the {windowed.heads} attention heads"
        fields.problems.append(text)
    types = kinds(fields, "layer_types", "full_attention", "sliding_attention") or [
        "full_attention" if i == 0 or (i + 1) % 6 == 0 else "sliding_attention" for i in range(dims.layers)
    ]
    if len(types) != dims.layers:
        fields.problems.append(f"layer_types has {len(types)} entries, expected one for each of {dims.layers} layers")
    attentions: list[Layer] = [windowed if kind == "sliding_attention" else full for kind in types]
    unused(fields, "partial_rotary_factor", "hybrid_block_size", "attention_chunk_size")
    return with_drafts(assemble(name, dims, dense_then_sparse(fields, dims, attentions, adapted=False)), fields)


def _published(fields: Fields) -> dict[str, list[str]]:
    """Kinds of layers by name, from the numeric lists of published configs: 1 for a window, and 1 for experts."""
    found = {}
    for key, numbers, names in (
        ("layer_types", "hybrid_layer_pattern", ("full_attention", "sliding_attention")),
        ("mlp_layer_types", "moe_layer_freq", ("dense", "sparse")),
    ):
        listed = fields.sequence(numbers, most=MOST_LAYERS) if isinstance(fields.data.get(numbers), list) else []
        if listed and key not in fields:
            if any(entry not in (0, 1) for entry in listed):
                fields.problem(numbers, "is not allowed; expected 0 or 1 for each layer")
            found[key] = [names[entry == 1] for entry in listed]
    return found


FAMILIES: dict[str, Reader] = {"mimo_v2_flash": mimo_v2}
"""Readers by `model_type`."""
