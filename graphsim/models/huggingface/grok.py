"""Grok 1 and 2: norms before and after each sublayer, soft caps; in Grok 2 an MLP in parallel with the experts."""

from __future__ import annotations

from dataclasses import replace

from graphsim.files.reading import Fields
from graphsim.models.config import ModelConfig
from graphsim.models.huggingface.common import Dims, Reader, assemble, read_dims, self_attention, size, unused, wrapped
from graphsim.models.huggingface.moe import experts_of
from graphsim.models.layers.attention import AttentionNames
from graphsim.models.layers.mlp import Mlp
from graphsim.models.layers.moe import Moe, MoeNames

_FACTORS = (
    *("embedding_multiplier_scale", "output_multiplier_scale", "attn_output_multiplier", "router_logit_softcapping"),
    *("attn_temperature_len", "original_max_position_embeddings", "scaling_factor", "extrapolation_factor"),
    *("attn_factor", "beta_fast", "beta_slow", "rope_type"),
)
"""Keys of factors and caps that do not affect the structure."""

_BEFORE = ("pre_attn_norm", "pre_moe_norm")
_AFTER = ("post_attn_norm", "post_moe_norm")


def grok1(fields: Fields, name: str) -> ModelConfig:
    """Grok-1 in the form of Hugging Face checkpoints (vLLM, `models/grok1.py`); xAI's own ties the embeddings."""
    dims = read_dims(fields, tied=True)
    names = MoeNames(
        router="moe_block.gate",
        gate_up="moe_block.experts.gate_up_proj",
        down="moe_block.experts.down_proj",
        experts=("linear", "linear_v", "linear_1"),
    )
    attention = AttentionNames(**{part: f"attn.{part}_proj" for part in "qkvo"})
    return _grok(fields, name, dims, attention, replace(_experts(fields, dims.intermediate), names=names))


def grok2(fields: Fields, name: str) -> ModelConfig:
    """Grok-2 (SGLang, `models/grok.py`): experts with a separate width, and an MLP for all tokens.

    Its config.json states the `model_type` of another model, GIT; only `architectures` distinguishes them.
    """
    if "Grok1ForCausalLM" not in fields.sequence("architectures"):
        fields.problem("architectures", "is not supported; of model_type 'git' only Grok-2's Grok1ForCausalLM is")
    dims = read_dims(fields)
    names = MoeNames(
        router="block_sparse_moe.gate",
        gate_up="block_sparse_moe.experts.gate_up_proj",
        down="block_sparse_moe.experts.down_proj",
        experts=("w1", "w3", "w2"),
    )
    moe = _experts(fields, size(fields, "moe_intermediate_size", default=dims.intermediate))
    beside = Mlp(intermediate=dims.intermediate) if fields.flag("residual_moe", False) else None
    if fields.raw("sliding_window_size", -1) != -1:
        fields.problem("sliding_window_size", "is not supported; expected -1, no window")
    if size(fields, "global_attn_every_n", default=1) != 1:
        fields.problem("global_attn_every_n", "is not supported; expected 1")
    return _grok(fields, name, dims, AttentionNames(), replace(moe, shared=beside, names=names))


def _grok(fields: Fields, name: str, dims: Dims, names: AttentionNames, moe: Moe) -> ModelConfig:
    unused(fields, *_FACTORS)
    capped = fields.number("attn_logit_softcapping", fields.number("max_attn_value", 30.0)) > 0
    attention = replace(self_attention(dims, names=names), soft_cap=capped)
    return assemble(name, dims, [wrapped(attention, moe, before=_BEFORE, after=_AFTER)] * dims.layers)


def _experts(fields: Fields, width: int) -> Moe:
    experts, chosen = experts_of(fields)
    return Moe(experts=experts, chosen=chosen, intermediate=width, adapt_experts=True, adapt_router=True, separate=True)


FAMILIES: dict[str, Reader] = {"grok-1": grok1, "git": grok2}
"""Readers by `model_type`."""
