"""Architectures with layers other than attention: state-space scans, short convolutions, the gated delta rule."""

from __future__ import annotations

from graphsim.models.gguf.facts import Config, Facts, Reader, experts_of
from graphsim.models.gguf.mixtures import qwen_moe


def qwen_hybrid(kind: str) -> Reader:
    """Gated delta rule layers with full attention at regular intervals (Qwen3-Next, Qwen3.5)."""

    def read(facts: Facts) -> Config:
        heads = facts.need("ssm.time_step_rank")
        types = facts.kinds("ssm_out.weight", "linear_attention", "full_attention")
        own = {
            "model_type": kind, "layer_types": types, "attention_bias": False,
            "linear_conv_kernel_dim": facts.get("ssm.conv_kernel"),
            "linear_key_head_dim": facts.get("ssm.state_size"),
            "linear_num_key_heads": facts.get("ssm.group_count"),
            "linear_num_value_heads": heads,
            "linear_value_head_dim": facts.need("ssm.inner_size") // max(heads, 1),
        }  # fmt: skip
        return own | (qwen_moe(kind)(facts) if facts.get("expert_count") else {})

    return read


def _mamba(facts: Facts) -> Config:
    return {
        "model_type": "falcon_mamba" if facts.get("ssm.dt_b_c_rms") else "mamba",
        "intermediate_size": facts.need("ssm.inner_size"), "state_size": facts.get("ssm.state_size"),
        "conv_kernel": facts.get("ssm.conv_kernel"), "time_step_rank": facts.get("ssm.time_step_rank"),
        "expand": facts.need("ssm.inner_size") // facts.need("embedding_length"), "head_dim": None,
        "num_attention_heads": None, "num_key_value_heads": None,
    }  # fmt: skip


def _mamba2(facts: Facts) -> Config:
    heads = facts.need("ssm.time_step_rank")
    return {
        "model_type": "mamba2", "num_heads": heads, "head_dim": facts.need("ssm.inner_size") // max(heads, 1),
        "state_size": facts.get("ssm.state_size"), "n_groups": facts.get("ssm.group_count"),
        "conv_kernel": facts.get("ssm.conv_kernel"),
        "expand": facts.need("ssm.inner_size") // facts.need("embedding_length"),
        "num_attention_heads": None, "num_key_value_heads": None, "intermediate_size": None,
    }  # fmt: skip


def _granite_hybrid(facts: Facts) -> Config:
    """Mamba-2 and attention. Its dense MLP counts as the shared expert."""
    heads = facts.need("ssm.time_step_rank")
    return {
        "model_type": "granitemoehybrid",
        "layer_types": facts.kinds("ssm_out.weight", "mamba", "attention"),
        "mamba_n_heads": heads, "mamba_d_head": facts.need("ssm.inner_size") // max(heads, 1),
        "mamba_d_state": facts.get("ssm.state_size"), "mamba_n_groups": facts.get("ssm.group_count"),
        "mamba_d_conv": facts.get("ssm.conv_kernel"),
        "mamba_expand": facts.need("ssm.inner_size") // facts.need("embedding_length"),
        "shared_intermediate_size": facts.get("expert_shared_feed_forward_length") or facts.get("feed_forward_length"),
        "num_local_experts": facts.get("expert_count") or 0, "num_experts_per_tok": facts.get("expert_used_count") or 0,
    }  # fmt: skip


def _lfm2(facts: Facts) -> Config:
    found = {
        "layer_types": facts.kinds("shortconv.conv.weight", "conv", "full_attention"),
        "block_auto_adjust_ff_dim": False,
        "conv_L_cache": facts.get("shortconv.l_cache"), "conv_bias": facts.has("shortconv.conv.bias"),
    }  # fmt: skip
    if not facts.get("expert_count"):
        return found | {"model_type": "lfm2"}
    own = experts_of(facts, experts="num_experts", chosen="num_experts_per_tok", width="moe_intermediate_size",
                   dense="num_dense_layers")  # fmt: skip
    return found | own | {"model_type": "lfm2_moe", "use_expert_bias": facts.has("exp_probs_b.bias")}


def _jamba(facts: Facts) -> Config:
    """Mamba with attention at regular intervals, and experts instead of MLPs at regular intervals."""
    expert, attention = facts.places("ffn_gate_inp.weight"), facts.places("attn_output.weight")
    return {
        "model_type": "jamba", "head_dim": None, "num_experts": facts.get("expert_count"),
        "num_experts_per_tok": facts.get("expert_used_count"), "mamba_d_conv": facts.get("ssm.conv_kernel"),
        "mamba_expand": facts.need("ssm.inner_size") // facts.need("embedding_length"),
        "mamba_d_state": facts.get("ssm.state_size"), "mamba_dt_rank": facts.get("ssm.time_step_rank"),
        "attn_layer_offset": attention[0], "attn_layer_period": attention[1],
        "expert_layer_offset": expert[0], "expert_layer_period": expert[1],
        "mamba_proj_bias": facts.has("ssm_in.bias"), "mamba_conv_bias": facts.has("ssm_conv1d.bias"),
    }  # fmt: skip


def _falcon_h1(facts: Facts) -> Config:
    """Mamba-2 in parallel with attention in every layer."""
    heads, inner = facts.need("ssm.time_step_rank"), facts.need("ssm.inner_size")
    return {
        "model_type": "falcon_h1", "mamba_n_heads": heads, "mamba_d_head": inner // max(heads, 1), "mamba_d_ssm": inner,
        "mamba_d_state": facts.get("ssm.state_size"), "mamba_n_groups": facts.get("ssm.group_count"),
        "mamba_d_conv": facts.get("ssm.conv_kernel"), "mamba_rms_norm": facts.has("ssm_norm.weight"),
        "mamba_proj_bias": facts.has("ssm_in.bias"), "mamba_conv_bias": facts.has("ssm_conv1d.bias"),
        "projectors_bias": facts.has("ssm_out.bias"),
    }  # fmt: skip


def _nemotron_h(facts: Facts) -> Config:
    """Each layer is one of Mamba-2, attention and MLP."""
    heads, inner = facts.need("ssm.time_step_rank"), facts.width("ssm_out.weight", 1) or facts.need("ssm.inner_size")
    scans, attends = facts.kinds("ssm_out.weight", "M", "-"), facts.kinds("attn_output.weight", "*", "-")
    return {
        "model_type": "nemotron_h", "mamba_num_heads": heads, "mamba_head_dim": inner // max(heads, 1),
        "hybrid_override_pattern": "".join(a if a == "*" else s for a, s in zip(attends, scans, strict=True)),
        "ssm_state_size": facts.get("ssm.state_size"), "n_groups": facts.get("ssm.group_count"),
        "conv_kernel": facts.get("ssm.conv_kernel"), "use_conv_bias": facts.has("ssm_conv1d.bias"),
        "use_bias": facts.has("ssm_in.bias"),
    }  # fmt: skip


HYBRIDS: dict[str, Reader] = {
    "falcon-h1": _falcon_h1,
    "granitehybrid": _granite_hybrid,
    "jamba": _jamba,
    "lfm2": _lfm2,
    "lfm2moe": _lfm2,
    "mamba": _mamba,
    "mamba2": _mamba2,
    "nemotron_h": _nemotron_h,
    "qwen35": qwen_hybrid("qwen3_5_text"),
    "qwen35moe": qwen_hybrid("qwen3_5_moe_text"),
    "qwen3next": qwen_hybrid("qwen3_next"),
}
"""Readers by `general.architecture`."""
