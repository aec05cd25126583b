"""Kimi Linear: Kimi delta attention in most layers, latent attention without positions in the others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from graphsim.files.reading import Fields
from graphsim.models.config import ModelConfig
from graphsim.models.huggingface.common import MOST_LAYERS, Dims, Reader, assemble, read_dims, size, unused
from graphsim.models.huggingface.moe import dense_then_sparse
from graphsim.models.layers.base import Layer
from graphsim.models.layers.kda import KimiDeltaAttention
from graphsim.models.layers.mla import LatentAttention


def kimi_linear(fields: Fields, name: str) -> ModelConfig:
    """Experts as DeepSeek has them behind either attention."""
    fields.data = {"first_k_dense_replace": 1, **fields.data}
    dims = read_dims(fields, floor=True, ties=False)
    delta, latent = _delta(fields), _latent(fields, dims)
    attentions: list[Layer] = [latent if full else delta for full in _full(fields, dims.layers)]
    if size(fields, "moe_layer_freq", default=1) != 1:
        fields.problem("moe_layer_freq", "is not allowed; expected 1: experts in every layer behind the dense ones")
    unused(fields, "head_dim", "qk_head_dim", "num_nextn_predict_layers", "mla_use_nope")
    return assemble(name, dims, dense_then_sparse(fields, dims, attentions, adapted=False))


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
    """Which layers have latent attention: by name, by lists that count from 1, or every fourth behind the first."""
    types = fields.sequence("layer_types", most=MOST_LAYERS)
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
