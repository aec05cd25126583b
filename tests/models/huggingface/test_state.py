"""Bytes that each family keeps per token or per sequence, against arithmetic from the papers."""

import pytest

import graphsim as gs
from graphsim.graph import walk
from graphsim.models.build import build
from graphsim.models.huggingface import from_config
from graphsim.models.phase import decode
from graphsim.ops.precision import load_precision
from tests.paths import hf_configs

CONFIGS = hf_configs()


def state_bytes(config: gs.ModelConfig, context: float) -> float:
    graph = build(config, decode(1.0, context - 1.0), load_precision("bf16"))
    return sum(float(op.state_bytes) * times for _, op, times in walk(graph))


def per_token(config: gs.ModelConfig, at: float = 256.0) -> float:
    return state_bytes(config, at + 1.0) - state_bytes(config, at)


def load(name: str) -> gs.ModelConfig:
    return from_config(CONFIGS[name], name)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        # 2 (keys and values) x layers x key heads x head_dim x 2 bytes (arXiv 2305.13245, section 2.1)
        ("default:llama", 2 * 32 * 32 * 128 * 2),
        ("default:mistral", 2 * 32 * 8 * 128 * 2),
        ("default:mixtral", 2 * 32 * 8 * 128 * 2),
        ("default:falcon", 2 * 32 * 1 * 64 * 2),
        # one latent of 512 and a rotary key of 64 per layer (arXiv 2405.04434, section 2.1.2)
        ("default:deepseek_v3", 61 * (512 + 64) * 2),
        # the same with an indexer's key of 128 per layer (DeepSeek-V3.2-Exp report, section 2.1)
        ("default:deepseek_v32", 61 * (512 + 64 + 128) * 2),
        # Jamba: one layer of eight attends (arXiv 2403.19887, section 3)
        ("default:jamba", 2 * 4 * 8 * 128 * 2),
        # no cache at all (arXiv 2312.00752)
        ("default:mamba", 0),
        ("default:mamba2", 0),
        # one layer of four attends, two key heads of 256 (Qwen3-Next model card)
        ("default:qwen3_next", 2 * 12 * 2 * 256 * 2),
        # eight of the pattern's layers attend, two key heads of 128 (Nemotron 3 Super's config)
        ("nvidia/NVIDIA-Nemotron-3-Super-120B-A12B", 2 * 8 * 2 * 128 * 2),
        # a latent of 512 and 64 beside it in seven layers of 27, and in 24 of 93 (arXiv 2510.26692; Kimi K3's config)
        ("moonshotai/Kimi-Linear-48B-A3B-Instruct", 7 * (512 + 64) * 2),
        ("moonshotai/Kimi-K3:text", 24 * (512 + 64) * 2),
        # GLM-5.2: of 78 layers, the first three and every fourth from the seventh have an indexer's key of 128
        ("zai-org/GLM-5.2", (78 * (512 + 64) + 21 * 128) * 2),
        # Ling 3: latent attention in the last of each group of six layers
        ("default:bailing_hybrid", 7 * (512 + 64) * 2),
        # nine layers attend to everything; keys of 192, values of 128 (MiMo-V2-Flash's config)
        ("XiaomiMiMo/MiMo-V2-Flash", 9 * 4 * (192 + 128) * 2),
        # keys and values of 10 in two heads, and in three of five layers an indexer's key of 6
        ("small:minimax_m3_vl_text", (5 * 2 * 2 * 10 + 3 * 6) * 2),
    ],
)
def test_cache_grows_per_token_as_the_papers_say(name: str, expected: int) -> None:
    assert per_token(load(name)) == expected


def test_windowed_layers_stop_growing() -> None:
    gemma = load("default:gemma2")
    full_layers = 26 // 2
    assert per_token(gemma, at=100_000.0) == 2 * full_layers * 4 * 256 * 2
    assert per_token(gemma, at=1_000.0) == 2 * 26 * 4 * 256 * 2


def test_gemma3n_keeps_keys_of_its_first_twenty_layers_only() -> None:
    """Of 35 layers the last 15 take an earlier one's keys; four of the first twenty see more than a window."""
    gemma = load("default:gemma3n_text")
    assert per_token(gemma, at=100.0) == 20 * 2 * 2 * 256 * 2
    assert per_token(gemma, at=10_000.0) == 4 * 2 * 2 * 256 * 2


SPARSE, HEAVY, V4_LAYERS = 20, 23, 43
"""DeepSeek-V4-Flash: two heavily compressed layers, then these and compressed sparse ones in turn."""


def test_deepseek_v4_grows_by_an_entry_for_every_4_or_128_tokens() -> None:
    """One row of 512 that serves as key and value, in sparse layers with an indexer's key of 128 (V4 report, 2.3)."""
    model = load("default:deepseek_v4")
    grown = state_bytes(model, 128.0 * 9) - state_bytes(model, 128.0 * 8)
    assert grown == (SPARSE * 32 * (512 + 128) + HEAVY * 512) * 2
    assert state_bytes(model, 1027.0) == state_bytes(model, 1024.0)


def test_deepseek_v4_keeps_windows_of_rows_beside_the_entries() -> None:
    """128 recent rows in each layer; values and weights of the tokens that wait to be pooled in fp32, windows of 8
    with two rows each in sparse layers, of 128 in heavy ones (vLLM 0.33, `models/deepseek_v4/compressor.py`).
    """
    rows = V4_LAYERS * 128 * 512 * 2
    waiting = SPARSE * 8 * 2 * 2 * (512 + 128) * 4 + HEAVY * 128 * 2 * 512 * 4
    entries = (SPARSE * 250 * (512 + 128) + HEAVY * 7 * 512) * 2
    assert state_bytes(load("default:deepseek_v4"), 1000.0) == rows + waiting + entries


def test_glm5_next_keeps_an_index_key_for_every_sixteen_tokens() -> None:
    """Eleven of 45 layers have a latent of 512 without positions (transformers 5.24, `Glm5NextTextConfig`)."""
    model = load("default:glm5_next_text")
    assert state_bytes(model, 1024.0) - state_bytes(model, 1008.0) == 11 * (16 * 512 + 128) * 2


def test_kimi_delta_attention_keeps_a_square_state_per_head_and_the_last_taps() -> None:
    """Heads of 128 x 128 in fp32, four taps of q, k and v in bf16; 20 of 27 layers (arXiv 2510.26692)."""
    kept = 20 * (32 * 128 * 128 * 4 + 3 * 32 * 128 * 4 * 2)
    latents = 7 * 1000 * (512 + 64) * 2
    assert state_bytes(load("moonshotai/Kimi-Linear-48B-A3B-Instruct"), 1000.0) == kept + latents


def test_mamba_keeps_a_state_and_the_last_taps_of_every_channel() -> None:
    """width x state in fp32 and width x taps in bf16 per layer (arXiv 2312.00752, section 3.3)."""
    width, state, taps, layers = 1536, 16, 4, 32
    assert state_bytes(load("default:mamba"), 1000.0) == layers * width * (state * 4 + taps * 2)


def test_mamba2_state_is_heads_times_head_dim_times_state() -> None:
    """arXiv 2405.21060, section 7: N = 128 for every one of heads x head_dim channels, convolution over x, B and C."""
    data = CONFIGS["default:mamba2"]
    width, state, groups = data["num_heads"] * data["head_dim"], data["state_size"], data["n_groups"]
    conv = (width + 2 * groups * state) * data["conv_kernel"] * 2
    assert state_bytes(load("default:mamba2"), 77.0) == data["num_hidden_layers"] * (width * state * 4 + conv)


def test_shared_layers_keep_no_cache_of_their_own() -> None:
    """Gemma 4 E2B reuses the caches of earlier layers in its last 20 of 35."""
    config = load("gemma4_e2b")
    data = CONFIGS["gemma4_e2b"]
    own = data["num_hidden_layers"] - data["num_kv_shared_layers"]
    graph = build(config, decode(1.0, 10.0), load_precision("bf16"))
    assert sum(times for _, op, times in walk(graph) if type(op).__name__ == "KvCache") == own
