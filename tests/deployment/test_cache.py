"""What a request keeps: by arithmetic from published shapes, and the same whoever asks."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import graphsim as gs
from graphsim.deployment.inference import Inference, Requests
from graphsim.deployment.memory import Memory
from tests.paths import hf_configs

GEMMA_3_27B: dict[str, Any] = {
    "model_type": "gemma3_text", "hidden_size": 5376, "intermediate_size": 21504, "num_hidden_layers": 62,
    "num_attention_heads": 32, "num_key_value_heads": 16, "head_dim": 128, "sliding_window": 1024,
    "vocab_size": 262208,
}  # fmt: skip
QWEN_3_5_27B: dict[str, Any] = {
    "model_type": "qwen3_5_text", "hidden_size": 5120, "intermediate_size": 17408, "num_hidden_layers": 64,
    "num_attention_heads": 24, "num_key_value_heads": 4, "head_dim": 256, "vocab_size": 248320,
    "linear_num_key_heads": 16, "linear_num_value_heads": 48, "linear_key_head_dim": 128,
    "linear_value_head_dim": 128, "full_attention_interval": 4,
}  # fmt: skip
MAMBA_2_2_7B: dict[str, Any] = {
    "model_type": "mamba2", "hidden_size": 2560, "num_hidden_layers": 64, "vocab_size": 50288, "num_heads": 80,
    "head_dim": 64, "state_size": 128, "n_groups": 1,
}  # fmt: skip


def blocks(tokens: float) -> float:
    """Tokens of whole blocks of 16 (vLLM's default)."""
    return 16.0 * math.ceil(tokens / 16)


def dense(tokens: float) -> float:
    """Llama-3.1 8B: 32 layers of 8 key heads of 128, keys and values in 2 bytes."""
    return 32 * (8 * 128 * 2 * 2) * blocks(tokens)


def sliding(tokens: float) -> float:
    """Gemma-3 27B: every sixth of 62 layers sees everything, the other 52 a window of 1,024."""
    return 16 * 128 * 2 * 2 * (10 * blocks(tokens) + 52 * blocks(min(tokens, 1024)))


def hybrid(tokens: float) -> float:
    """Qwen3.5 27B: 16 of 64 layers attend, 48 keep 48 states of 128 x 128 in fp32 and 4 inputs of a convolution."""
    states = 48 * 128 * 128 * 4
    convolution = (2 * 16 * 128 + 48 * 128) * 4 * 2
    return 16 * (4 * 256 * 2 * 2) * blocks(tokens) + 48 * (states + convolution)


def latent(tokens: float) -> float:
    """DeepSeek-V2-Lite: 27 layers keep a latent vector of 512 and a rotary key of 64."""
    return 27 * (512 + 64) * 2 * blocks(tokens)


def recurrent(tokens: float) -> float:
    """Mamba-2 2.7B: 64 layers keep 80 x 64 x 128 in fp32 and 4 inputs of a convolution, whatever the length."""
    return 64 * (80 * 64 * 128 * 4 + (80 * 64 + 2 * 128) * 4 * 2)


FAMILIES = {
    "dense": ("llama-3.1-8b", dense),
    "sliding": (GEMMA_3_27B, sliding),
    "hybrid": (QWEN_3_5_27B, hybrid),
    "latent": (hf_configs()["dsv2lite"], latent),
    "recurrent": (MAMBA_2_2_7B, recurrent),
}


def memory(model: Any, batch: Any, tokens: int, engine: str) -> Memory:
    deployment = gs.Deployment(model, "h200-sxm", engine=engine)
    requests = Requests(batch=batch, input_tokens=tokens - 1, output_tokens=1)
    return Inference(deployment=deployment, requests=requests).memory()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("tokens", [100, 5000])
def test_one_more_request_takes_what_concurrency_charges_for_it(family: str, tokens: int) -> None:
    model, each = FAMILIES[family]
    total = memory(model, np.array([7.0, 8.0]), tokens, "vllm").total_bytes
    assert total[1] - total[0] == pytest.approx(each(tokens), rel=1e-9)
    found = gs.footprint(model, "h200-sxm")
    assert found.request_bytes(tokens) == each(tokens)
    assert found.concurrency(tokens) == max(found.kv_bytes, 0) // each(tokens)


@pytest.mark.parametrize("family", FAMILIES)
def test_without_blocks_a_request_keeps_its_tokens_alone(family: str) -> None:
    """5,000 tokens are no whole number of blocks: 16 · ⌈5000 / 16⌉ = 5,008."""
    model, each = FAMILIES[family]
    growing = {"dense": 131_072, "sliding": 10 * 8192, "hybrid": 16 * 4096, "latent": 31_104, "recurrent": 0}[family]
    assert memory(model, 3.0, 5000, "reference").kv_cache_bytes == 3 * (each(5000) - 8 * growing)


def test_tokens_are_counted_with_the_blocks_of_windowed_layers() -> None:
    """vLLM logs 78,384 tokens in 5.38 GiB for gpt-oss-120b: 36 layers of 8 heads of 64 (hf-mem issue 60)."""
    found = gs.footprint("gpt-oss-120b", "h200-sxm", precision="mxfp4")
    assert found.kv_token_bytes == 36 * 8 * 64 * 2 * 2
    assert found.kv_tokens == 16 * (found.kv_bytes // (16 * found.kv_token_bytes))
    assert 5.38 * 2**30 / found.kv_token_bytes == pytest.approx(78_384, rel=1e-3)


def test_a_model_without_keys_and_values_holds_requests_of_any_length() -> None:
    found = gs.footprint(MAMBA_2_2_7B, "h200-sxm")
    assert found.kv_token_bytes == 0 and found.kv_tokens == np.inf
    assert found.concurrency(100) == found.concurrency(10**6) == found.kv_bytes // recurrent(1)


def test_slots_leave_room_for_the_state_of_requests_where_these_are_told() -> None:
    lora = gs.LoraConfig(rank=16)
    one = gs.footprint(QWEN_3_5_27B, "h200-sxm", gs.LoraConfig(rank=16, max_loras=1))
    kept = 64 * hybrid(1000)
    room = one.kv_bytes + one.slot_bytes - kept
    found = gs.adapters_that_fit(QWEN_3_5_27B, "h200-sxm", 64_000, lora, requests=64)
    assert 0.99 * room < found * one.slot_bytes <= room  # the rest is what the allocator rounds up
    held = [gs.footprint(QWEN_3_5_27B, "h200-sxm", gs.LoraConfig(rank=16, max_loras=int(found) + n)) for n in (0, 1)]
    assert held[0].concurrency(1000) >= 64 > held[1].concurrency(1000)
    assert found < gs.adapters_that_fit(QWEN_3_5_27B, "h200-sxm", 64_000, lora)


def test_a_pipeline_holds_as_many_requests_as_its_fullest_stage() -> None:
    """Two stages of 16 layers each: half the cache of a request on each; the last one samples and has the head."""
    found = gs.footprint("llama-3.1-8b", "h100-sxm", parallelism=gs.Parallelism(pp=2))
    assert found.request_bytes(1000) == dense(1000) / 2
    assert found.concurrency(1000) == min(room.kv_bytes for room in found.rooms) // (dense(1000) / 2)
