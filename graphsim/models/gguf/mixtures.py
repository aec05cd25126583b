"""Architectures that have experts, or may have them."""

from __future__ import annotations

from graphsim.models.gguf.facts import Config, Facts, Reader, experts_of


def _llama(facts: Facts) -> Config:
    """Llama, Mistral, Yi and others; Mixtral if there are experts."""
    if not facts.get("expert_count"):
        return {"model_type": "llama"}
    return {"model_type": "mixtral", **experts_of(facts, experts="num_local_experts", chosen="num_experts_per_tok")}


def _llama4(facts: Facts) -> Config:
    step = facts.get("interleave_moe_layer_step") or 1
    return {
        "model_type": "llama4_text",
        "intermediate_size": facts.get("expert_feed_forward_length"),
        "intermediate_size_mlp": facts.get("feed_forward_length"),
        "moe_layers": [i for i in range(facts.layers) if i % step == step - 1],
        **experts_of(facts, experts="num_local_experts", chosen="num_experts_per_tok"),
    }


def qwen_moe(kind: str) -> Reader:
    """Qwen's MoE models: experts in every layer, with a shared one if its width is stated."""

    def read(facts: Facts) -> Config:
        return {
            "model_type": kind,
            "mlp_only_layers": [], "decoder_sparse_step": 1,
            "shared_expert_intermediate_size": facts.get("expert_shared_feed_forward_length")
            or facts.width("ffn_up_shexp.weight"),
            "moe_intermediate_size": facts.get("expert_feed_forward_length") or facts.width("ffn_up_exps.weight", -2),
            **experts_of(facts, experts="num_experts", chosen="num_experts_per_tok"),
        }  # fmt: skip

    return read


def _deepseek2(facts: Facts) -> Config:
    """DeepSeek-V2, V3 and R1, Kimi K2; files since PR 12801 state keys and values as cached."""
    rope = facts.need("rope.dimension_count")
    key = facts.get("attention.key_length_mla") or facts.need("attention.key_length")
    value = facts.get("attention.value_length_mla") or facts.need("attention.value_length")
    return {
        "model_type": "deepseek_v3" if facts.has("exp_probs_b.bias") else "deepseek_v2",
        "q_lora_rank": facts.get("attention.q_lora_rank"), "kv_lora_rank": facts.need("attention.kv_lora_rank"),
        "qk_nope_head_dim": key - rope, "qk_rope_head_dim": rope, "v_head_dim": value, "head_dim": None,
        "num_key_value_heads": facts.get("attention.head_count"), "moe_layer_freq": 1,
        "moe_intermediate_size": facts.get("expert_feed_forward_length"),
        "n_group": facts.get("expert_group_count"), "topk_group": facts.get("expert_group_used_count"),
        **experts_of(facts, experts="n_routed_experts", chosen="num_experts_per_tok", shared="n_shared_experts",
                   dense="first_k_dense_replace"),
    }  # fmt: skip


def _glm4_moe(facts: Facts) -> Config:
    return {
        "model_type": "glm4_moe", "use_qk_norm": facts.has("attn_q_norm.weight"),
        **experts_of(facts, experts="n_routed_experts", chosen="num_experts_per_tok", width="moe_intermediate_size",
                   shared="n_shared_experts", dense="first_k_dense_replace"),
    }  # fmt: skip


def _dots1(facts: Facts) -> Config:
    return _glm4_moe(facts) | {"model_type": "dots1"}


def _gpt_oss(facts: Facts) -> Config:
    turns = ["sliding_attention", "full_attention"]
    return {
        "model_type": "gpt_oss", "layer_types": [turns[i % 2] for i in range(facts.layers)],
        "intermediate_size": facts.get("expert_feed_forward_length") or facts.get("feed_forward_length"),
        **experts_of(facts, experts="num_local_experts", chosen="num_experts_per_tok"),
    }  # fmt: skip


def _granite_moe(facts: Facts) -> Config:
    shared = facts.get("expert_shared_feed_forward_length")
    found = {"model_type": "granitemoeshared" if shared else "granitemoe", "shared_intermediate_size": shared}
    return found | experts_of(facts, experts="num_local_experts", chosen="num_experts_per_tok")


def _ernie_moe(facts: Facts) -> Config:
    return {
        "model_type": "ernie4_5_moe", "use_bias": facts.has("attn_q.bias"),
        "moe_layer_interval": facts.get("interleave_moe_layer_step") or 1, "moe_layer_end_index": facts.layers - 1,
        "moe_num_shared_experts": facts.get("expert_shared_count") or 0,
        **experts_of(facts, experts="moe_num_experts", chosen="moe_k", width="moe_intermediate_size",
                   dense="moe_layer_start_index"),
    }  # fmt: skip


def _minimax_m2(facts: Facts) -> Config:
    return {
        "model_type": "minimax_m2",
        "intermediate_size": facts.get("expert_feed_forward_length") or facts.get("feed_forward_length"),
        **experts_of(facts, experts="num_local_experts", chosen="num_experts_per_tok"),
    }


def _olmoe(facts: Facts) -> Config:
    return {"model_type": "olmoe", **experts_of(facts, experts="num_experts", chosen="num_experts_per_tok")}


def _phimoe(facts: Facts) -> Config:
    own = experts_of(facts, experts="num_local_experts", chosen="num_experts_per_tok")
    return {"model_type": "phimoe", "lm_head_bias": facts.has("output.bias"), "head_dim": None, **own}


def _hunyuan_moe(facts: Facts) -> Config:
    return {
        "model_type": "hunyuan_v1_moe", "use_qk_norm": True,
        **experts_of(facts, experts="num_experts", chosen="moe_topk", width="moe_intermediate_size"),
        "num_shared_expert": 1,
    }  # fmt: skip


MIXTURES: dict[str, Reader] = {
    "deepseek2": _deepseek2,
    "dots1": _dots1,
    "ernie4_5-moe": _ernie_moe,
    "glm4moe": _glm4_moe,
    "gpt-oss": _gpt_oss,
    "granitemoe": _granite_moe,
    "hunyuan-moe": _hunyuan_moe,
    "llama": _llama,
    "llama4": _llama4,
    "minimax-m2": _minimax_m2,
    "olmoe": _olmoe,
    "phimoe": _phimoe,
    "qwen2moe": qwen_moe("qwen2_moe"),
    "qwen3moe": qwen_moe("qwen3_moe"),
    "qwen3vlmoe": qwen_moe("qwen3_moe"),
}
"""Readers by `general.architecture`."""
