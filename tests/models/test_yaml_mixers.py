"""Latent attention, state-space layers and soft caps of a model file are those that the Hugging Face reader makes."""

from __future__ import annotations

from typing import Any

import pytest

from graphsim.errors import ConfigError
from graphsim.graph import to_text
from graphsim.models.build import build
from graphsim.models.loading import load_model
from graphsim.models.phase import decode, prefill
from graphsim.ops.precision import load_precision

MIXTURE = {"experts": 8, "experts_per_token": 2, "intermediate_size": 48, "shared_experts": 2,
           "adapt_experts": True, "adapt_router": True}  # fmt: skip
DEEPSEEK = (
    {
        "hidden_size": 64, "vocab_size": 100, "max_positions": 4096,
        "latent_attention": {"heads": 4, "kv_rank": 32, "nope": 16, "rope": 8, "value_dim": 16},
        "mlp": {"intermediate_size": 160}, "moe": MIXTURE,
        "layers": [{"feed_forward": "mlp"}, {"repeat": 2}],
    },
    {
        "model_type": "deepseek_v2", "hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 3,
        "num_attention_heads": 4, "num_key_value_heads": 4, "vocab_size": 100, "max_position_embeddings": 4096,
        "moe_intermediate_size": 48, "n_routed_experts": 8, "n_shared_experts": 2, "num_experts_per_tok": 2,
        "first_k_dense_replace": 1, "q_lora_rank": None, "kv_lora_rank": 32, "qk_nope_head_dim": 16,
        "qk_rope_head_dim": 8, "v_head_dim": 16, "tie_word_embeddings": False,
    },
)  # fmt: skip
SPARSE = (
    DEEPSEEK[0] | {
        "latent_attention": DEEPSEEK[0]["latent_attention"]
        | {"q_rank": 24, "indexer": {"heads": 2, "head_dim": 16, "chosen": 64}},
    },
    DEEPSEEK[1] | {"model_type": "deepseek_v32", "q_lora_rank": 24, "index_n_heads": 2, "index_head_dim": 16,
                   "index_topk": 64, "n_group": 1, "topk_group": 1},
)  # fmt: skip
NAMES = {"layer": "model.layers.{}.", "embedding": "model.embeddings", "final_norm": "model.norm_f"}
MIXED = {"q": "mixer.q_proj", "k": "mixer.k_proj", "v": "mixer.v_proj", "o": "mixer.o_proj"}
NEMOTRON_H = (
    {
        "hidden_size": 64, "vocab_size": 100, "max_positions": 4096, "names": NAMES,
        "norm_names": {"attention": "norm", "mlp": "norm"},
        "attention": {"heads": 4, "kv_heads": 2, "head_dim": 16, "rope": False, "names": MIXED},
        "mamba2": {"heads": 8, "head_dim": 8, "groups": 2, "state": 16},
        "mlp": {"intermediate_size": 96, "gated": False, "names": {"up": "mixer.up_proj", "down": "mixer.down_proj"}},
        "layers": [
            {"mixer": "mamba2", "feed_forward": "none"}, {"mixer": "none"}, {"feed_forward": "none"},
            {"repeat": 2, "pattern": [{"mixer": "mamba2", "feed_forward": "none"}, {"mixer": "none"}]},
        ],
    },
    {
        "model_type": "nemotron_h", "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 7,
        "hybrid_override_pattern": "M-*M-M-", "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16,
        "vocab_size": 100, "max_position_embeddings": 4096, "mamba_num_heads": 8, "mamba_head_dim": 8, "n_groups": 2,
        "ssm_state_size": 16, "conv_kernel": 4, "tie_word_embeddings": False,
    },
)  # fmt: skip
BACKBONE = {"layer": "backbone.layers.{}.", "embedding": "backbone.embeddings", "final_norm": "backbone.norm_f"}
MAMBA2 = (
    {
        "hidden_size": 64, "vocab_size": 100, "layers": 3, "names": BACKBONE, "norm_names": {"attention": "norm"},
        "mamba2": {"heads": 8, "head_dim": 16, "groups": 2, "state": 16},
    },
    {
        "model_type": "mamba2", "hidden_size": 64, "num_hidden_layers": 3, "vocab_size": 100, "num_heads": 8,
        "head_dim": 16, "n_groups": 2, "state_size": 16, "expand": 2, "tie_word_embeddings": False,
    },
)  # fmt: skip
MAMBA = (
    {
        "hidden_size": 64, "vocab_size": 100, "layers": 3, "names": BACKBONE, "norm_names": {"attention": "norm"},
        "tied_embeddings": True, "mamba": {},
    },
    {"model_type": "mamba", "hidden_size": 64, "num_hidden_layers": 3, "vocab_size": 100, "state_size": 16},
)  # fmt: skip
GEMMA_2 = (
    {
        "hidden_size": 64, "vocab_size": 100, "max_positions": 4096, "tied_embeddings": True, "logit_soft_cap": 30.0,
        "norm_placement": "both", "mlp": {"intermediate_size": 96},
        "attention": {"heads": 4, "kv_heads": 2, "head_dim": 16, "soft_cap": 50.0},
        "layers": [{"repeat": 2, "pattern": [{"attention": {"window": 32}}, {}]}],
    },
    {
        "model_type": "gemma2", "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 4,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "vocab_size": 100, "sliding_window": 32,
        "max_position_embeddings": 4096, "attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0,
    },
)  # fmt: skip
PAIRS = {"DeepSeek-V2-Lite": DEEPSEEK, "DeepSeek-V3.2": SPARSE, "Nemotron-H": NEMOTRON_H, "Mamba-2": MAMBA2,
         "Mamba": MAMBA, "Gemma 2": GEMMA_2}  # fmt: skip


@pytest.mark.parametrize("name", PAIRS)
def test_a_file_that_says_what_a_config_says_makes_the_same_model(name: str) -> None:
    ours, theirs = (load_model(data) for data in PAIRS[name])
    assert (ours.stem, ours.head, ours.layer_prefix) == (theirs.stem, theirs.head, theirs.layer_prefix)
    assert ours.max_positions == theirs.max_positions
    assert ours.num_parameters == theirs.num_parameters
    for phase in (prefill(2.0, 96.0), decode(4.0, 200.0)):
        assert to_text(build(ours, phase, BF16)) == to_text(build(theirs, phase, BF16))


BF16 = load_precision("bf16")


def changed(data: dict[str, Any], section: str, **keys: Any) -> dict[str, Any]:
    return data | {section: {**data[section], **keys}}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (DEEPSEEK[0] | {"mixer": "latent"}, "mixer = 'latent' is not allowed; .*allowed: attention, latent_attention"),
        (DEEPSEEK[0] | {"latent_attention": {"heads": 4}}, "latent_attention.kv_rank is missing"),
        (changed(DEEPSEEK[0], "latent_attention", kv_rnak=3), "kv_rnak is not a known key; did you mean 'kv_rank'"),
        (changed(SPARSE[0], "latent_attention", indexer={"heads": 2}), "latent_attention.indexer.head_dim is missing"),
        (DEEPSEEK[0] | {"mamba2": {"heads": 8}, "mixer": "latent_attention"}, r"used by no layer.*\(mixer: mamba2\)"),
        (changed(MAMBA2[0], "mamba2", groups=3), "groups = 3 does not divide heads = 8; allowed: a divisor of 8"),
        (changed(MAMBA2[0], "mamba2", state=0), "mamba2.state = 0 is not allowed; expected a whole number from 1"),
        (MAMBA2[0] | {"residual": "parallel"}, "residual = 'parallel' needs a mixer and a feed_forward part"),
        (MAMBA2[0] | {"mixer": "none", "feed_forward": "none"}, "mixer = 'none' leaves a layer without any part"),
        (GEMMA_2[0] | {"logit_soft_cap": -1}, "logit_soft_cap = -1 is not allowed; expected a number from 0"),
        (changed(GEMMA_2[0], "attention", soft_cap=True), "soft_cap"),
    ],
)
def test_a_mistake_in_a_mixer_is_a_sentence_that_names_the_place(data: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_model(data)


def test_a_block_of_ones_own_holds_the_same_mixers() -> None:
    nodes = [{"name": "norm", "op": "norm"}, {"name": "mix", "op": "mamba2"},
             {"name": "out", "op": "add", "inputs": ["mix", "input"]}]  # fmt: skip
    data = {key: value for key, value in MAMBA2[0].items() if key not in ("layers", "norm_names")}
    own = load_model(data | {"blocks": {"mine": nodes}, "layers": [{"repeat": 3, "block": "mine"}]})
    assert own.num_parameters == load_model(MAMBA2[1]).num_parameters
