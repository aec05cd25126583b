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
    ],
)
def test_cache_grows_per_token_as_the_papers_say(name: str, expected: int) -> None:
    assert per_token(load(name)) == expected


def test_windowed_layers_stop_growing() -> None:
    gemma = load("default:gemma2")
    full_layers = 26 // 2
    assert per_token(gemma, at=100_000.0) == 2 * full_layers * 4 * 256 * 2
    assert per_token(gemma, at=1_000.0) == 2 * 26 * 4 * 256 * 2


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
