"""Mixtures of experts that depart from the usual: caches, positions, routed attention, experts that lie idle."""

import pytest

import graphsim as gs
from graphsim.graph import total_work, walk
from graphsim.models.build import build
from graphsim.models.huggingface import from_config
from graphsim.models.phase import decode, prefill
from graphsim.ops import Rope
from graphsim.ops.precision import load_precision
from tests.paths import hf_configs

CONFIGS = hf_configs()
BF16 = load_precision("bf16")


def load(name: str, **changed: object) -> gs.ModelConfig:
    return from_config({**CONFIGS[name], **changed}, name)


def kept_bytes(config: gs.ModelConfig, context: float) -> float:
    graph = build(config, decode(1.0, context - 1.0), BF16)
    return sum(float(op.state_bytes) * times for _, op, times in walk(graph))


@pytest.mark.parametrize(
    ("name", "short", "long"),
    [
        # 2 (keys and values) x layers x key heads x head_dim x 2 bytes; long: layers that see all keys only
        ("default:afmoe", 2 * 32 * 16 * 128 * 2, 2 * 8 * 16 * 128 * 2),
        ("default:cohere2_moe", 2 * 40 * 64 * 128 * 2, 2 * 10 * 64 * 128 * 2),
        ("default:exaone_moe", 2 * 32 * 32 * 128 * 2, 2 * 8 * 32 * 128 * 2),
        ("default:flint", 2 * 49 * 4 * 128 * 2, 2 * 14 * 4 * 128 * 2),
        ("default:granite_swa", 2 * 24 * 4 * 128 * 2, 2 * 6 * 4 * 128 * 2),
        ("default:jetmoe", 2 * 12 * 16 * 128 * 2, 2 * 12 * 16 * 128 * 2),
        ("default:kolibri1", 2 * 50 * 4 * 128 * 2, 2 * 10 * 4 * 128 * 2),
        ("default:laguna", 2 * 40 * 8 * 128 * 2, 2 * 40 * 8 * 128 * 2),
        ("default:lfm3", 2 * 11 * 4 * 128 * 2, 2 * 6 * 4 * 128 * 2),
        ("default:sarvam_mla", 32 * (512 + 64) * 2, 32 * (512 + 64) * 2),
        # of two layers one has keys (arXiv 2411.02265, section 2.2)
        ("tencent/Tencent-Hunyuan-Large", 2 * 32 * 8 * 80 * 2, 2 * 32 * 8 * 80 * 2),
        # one layer of eight attends (arXiv 2501.08313, section 2.1)
        ("MiniMaxAI/MiniMax-Text-01", 2 * 10 * 8 * 128 * 2, 2 * 10 * 8 * 128 * 2),
        ("inclusionAI/Ling-1T", 2 * 80 * 8 * 128 * 2, 2 * 80 * 8 * 128 * 2),
        ("xai-org/grok-2", 2 * 64 * 8 * 128 * 2, 2 * 64 * 8 * 128 * 2),
    ],
)
def test_cache_grows_by_hand_arithmetic_within_a_window_and_beyond(name: str, short: int, long: int) -> None:
    config = load(name)
    assert kept_bytes(config, 65.0) - kept_bytes(config, 64.0) == short
    assert kept_bytes(config, 100_001.0) - kept_bytes(config, 100_000.0) == long


@pytest.mark.parametrize(
    ("name", "turned"),
    [
        ("default:afmoe", 24),  # the layers that slide
        ("default:cohere2_moe", 30),
        ("small:cohere2_moe-prefix", 4),  # of five layers the last sees all keys without positions
        ("default:exaone_moe", 24),
        ("default:flint", 35),
        ("default:kolibri1", 40),
        ("small:granite_swa-nope", 3),  # where `layer_rope_theta` is not 0
        ("default:llama4_text", 36),  # three of four
        ("default:granitemoehybrid", 0),
        ("small:granitemoehybrid-rope", 2),
        ("default:laguna", 40),
        ("default:cohere2", 30),
        ("default:exaone4", 24),
        ("default:smollm3", 27),
    ],
)
def test_layers_without_rotary_positions_turn_nothing(name: str, turned: int) -> None:
    graph = build(load(name), decode(1.0, 7.0), BF16)
    assert sum(times for _, op, times in walk(graph) if isinstance(op, Rope)) == turned


def test_routed_attention_multiplies_by_the_chosen_experts_alone() -> None:
    config = load("small:jetmoe")
    hidden, layers, key_heads, dim, width, experts, chosen, vocabulary = 256, 5, 2, 24, 160, 5, 3, 512
    tokens, length = 2 * 128, 128
    inner = key_heads * dim
    routers = 2 * hidden * experts
    projections = chosen * hidden * inner + 2 * hidden * inner + chosen * inner * hidden
    scores = 2 * chosen * inner * length
    mlp = chosen * 3 * hidden * width
    expected = 2 * tokens * (layers * (routers + projections + scores + mlp) + hidden * vocabulary)
    graph = build(config, prefill(2.0, float(length), all_logits=True, causal=False), BF16)
    assert total_work(graph).flops == expected


def test_experts_of_their_own_get_a_pair_for_each_weight() -> None:
    config = load("deepseek-ai/deepseek-moe-16b-base")
    pairs = gs.lora_parameters(config, gs.LoraConfig(rank=4, target_modules=["gate_proj", "up_proj", "down_proj"]))
    routed, shared, dense = 27 * 64 * 3 * (2048 + 1408), 27 * 3 * (2048 + 2816), 3 * (2048 + 10944)
    assert pairs == 4 * (routed + shared + dense)


def test_experts_for_images_cost_memory_and_no_time_in_a_step_of_text() -> None:
    name = "small:ernie4_5_vl_moe_text"
    usual, wide = load(name), load(name, moe_intermediate_size=[1536, 1024])
    assert wide.num_parameters - usual.num_parameters == 3 * 64 * 3 * 2560 * 512
    times = [
        gs.simulate(model, "h100-sxm", batch=4, cost="roofline", engine="reference").tpot_s for model in (usual, wide)
    ]
    assert times[0] == times[1]


@pytest.mark.parametrize(
    ("name", "changed", "sentence"),
    [
        ("default:afmoe", {"layer_types": ["chunked_attention"] * 32}, "'chunked_attention'; allowed: sliding_att"),
        ("default:mellum", {"mlp_layer_types": ["sparse"] * 3}, "has 3 entries, expected one for each of 28 layers"),
        ("default:laguna", {"moe_apply_router_weight_on_input": True}, "moe_apply_router_weight_on_input = True"),
        ("default:laguna", {"num_attention_heads_per_layer": [5] * 40}, "multiples of the 8 key heads"),
        ("xai-org/grok-2", {"architectures": ["GitForCausalLM"]}, "only Grok-2's Grok1ForCausalLM is"),
        ("MiniMaxAI/MiniMax-Text-01", {"attn_type_list": [0, 2] * 40}, "expected 0 or 1 for each of 80 layers"),
        ("default:zamba2", {"hybrid_layer_ids": [1]}, "does not name the layers that layers_block_type calls 'hybrid'"),
        ("default:zamba2", {"mamba_headdim": 32}, "is not mamba_expand x hidden_size = 5120"),
        ("default:deepseek_v3", {"q_lora_rank": 0}, "q_lora_rank = 0 is not allowed"),
    ],
)
def test_what_is_not_modelled_is_refused_in_one_sentence(name: str, changed: dict, sentence: str) -> None:
    with pytest.raises(gs.ConfigError) as caught:
        load(name, **changed)
    assert sentence in str(caught.value) and "\n" not in str(caught.value)


def test_layers_that_draft_are_named_in_a_note() -> None:
    notes = load("default:mellum", num_nextn_predict_layers=1).notes
    assert any("num_nextn_predict_layers = 1" in note for note in notes)
