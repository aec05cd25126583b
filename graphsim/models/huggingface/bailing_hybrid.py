"""Ling 3: Kimi delta attention in most layers, gated latent attention in the last of each group."""

from __future__ import annotations

from graphsim.files.reading import Fields
from graphsim.models.config import ModelConfig
from graphsim.models.huggingface.common import (
    Reader,
    assemble,
    kinds,
    read_dims,
    size,
    unused,
    with_drafts,
)
from graphsim.models.huggingface.moe import dense_then_sparse
from graphsim.models.layers.base import Layer
from graphsim.models.layers.kda import KdaNames, KimiDeltaAttention
from graphsim.models.layers.mla import LatentAttention

_NAMES = KdaNames(decay=("self_attn.forget_gate.f_proj",), gate=("self_attn.g_proj",))


def bailing_hybrid(fields: Fields, name: str) -> ModelConfig:
    """Experts as in DeepSeek; decay and gate of the delta rule are projected at full width."""
    dims = read_dims(fields, floor=True, ties=False)
    delta = KimiDeltaAttention(
        heads=size(fields, "linear_num_heads", default=dims.heads),
        head_dim=size(fields, "linear_head_dim", default=dims.head_dim),
        taps=size(fields, "linear_conv_kernel_dim", "short_conv_kernel_size", default=4),
        rank=0,
        names=_NAMES,
    )
    latent = LatentAttention(
        heads=dims.heads,
        q_rank=size(fields, "q_lora_rank", default=0, least=0),
        kv_rank=size(fields, "kv_lora_rank"),
        nope=size(fields, "qk_nope_head_dim"),
        rope=size(fields, "qk_rope_head_dim"),
        value_dim=size(fields, "v_head_dim"),
        bias=fields.flag("attention_bias", False),
        gate=1,
    )
    group = size(fields, "layer_group_size", default=6)
    types = kinds(fields, "layer_types", "full_attention", "linear_attention") or [
        "full_attention" if (i + 1) % group == 0 else "linear_attention" for i in range(dims.layers)
    ]
    if len(types) != dims.layers:
        fields.problems.append(f"layer_types has {len(types)} entries, expected one for each of {dims.layers} layers")
    attentions: list[Layer] = [latent if kind == "full_attention" else delta for kind in types]
    unused(fields, "num_mtp_layers", "qk_head_dim")
    model = assemble(name, dims, dense_then_sparse(fields, dims, attentions, adapted=False))
    return with_drafts(model, fields)


FAMILIES: dict[str, Reader] = {"bailing_hybrid": bailing_hybrid}
"""Readers by `model_type`."""
