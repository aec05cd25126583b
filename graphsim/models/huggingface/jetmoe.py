"""JetMoE: experts in the MLP and in the attention (arXiv 2404.07413)."""

from __future__ import annotations

from graphsim.files.reading import Fields
from graphsim.models.config import ModelConfig
from graphsim.models.huggingface.common import Reader, assemble, pre_norm, read_dims, size
from graphsim.models.huggingface.moe import experts_of
from graphsim.models.layers.moe import Moe, MoeNames
from graphsim.models.layers.routed_attention import RoutedAttention


def jetmoe(fields: Fields, name: str) -> ModelConfig:
    """Each chosen expert has as many query heads as there are key heads, regardless of the config (`JetMoeConfig`)."""
    experts, chosen = experts_of(fields)
    kv_heads = size(fields, "num_key_value_heads", default=16)
    fields.data = {**fields.data, "num_attention_heads": kv_heads * chosen}
    dims = read_dims(fields, tied=True)
    attention = RoutedAttention(experts=experts, chosen=chosen, kv_heads=kv_heads, head_dim=dims.head_dim)
    names = MoeNames(router="mlp.router.layer", gate_up="mlp.input_linear", down="mlp.output_linear")
    moe = Moe(
        experts=experts, chosen=chosen, intermediate=dims.intermediate, sum_bias=True, adapt_router=True, names=names
    )
    return assemble(name, dims, [pre_norm(attention, moe)] * dims.layers)


FAMILIES: dict[str, Reader] = {"jetmoe": jetmoe}
"""Readers by `model_type`."""
