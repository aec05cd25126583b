"""From an engine's profile, its flags and the device's memory to a scheduler's rules."""

from __future__ import annotations

from dataclasses import replace
from math import inf
from typing import Any

import pytest

import graphsim as gs
from graphsim.analysis.slots import footprint_of
from graphsim.errors import ConfigError, InfeasibleError
from graphsim.serving.engine_limits import EngineLimits
from graphsim.serving.engine_rules import captured_of, rules_of, served
from graphsim.serving.rules import Rules

LORA = gs.LoraConfig(rank=16, max_loras=32)


def deployment(engine: str = "vllm", lora: gs.LoraConfig | None = None, device: str = "h100-sxm") -> gs.Deployment:
    return gs.Deployment("llama-3.1-8b", device, engine=engine, lora=lora)


def rules(engine: str = "vllm", lora: gs.LoraConfig | None = None, device: str = "h100-sxm", **limits: Any) -> Rules:
    return rules_of(deployment(engine, lora, device), EngineLimits(**limits))


@pytest.mark.parametrize("engine", gs.list_engines())
def test_every_engine_has_rules(engine: str) -> None:
    found = rules(engine, LORA)
    assert found.kv_blocks * found.block_tokens > 100_000
    assert found.max_num_seqs >= 32 and found.max_num_batched_tokens >= 2048
    assert found.adapters.max_loras == 32 <= found.adapters.max_cpu_loras


def test_a_step_of_vllm_holds_what_its_device_allows() -> None:
    """vLLM 0.33, `get_batch_defaults`: from 70 GiB on, but for A100s."""
    assert (rules().max_num_batched_tokens, rules().max_num_seqs) == (8192, 1024)
    for device in ("l40s", "a100-80gb-sxm"):
        assert (rules(device=device).max_num_batched_tokens, rules(device=device).max_num_seqs) == (2048, 256)


@pytest.mark.slow
def test_engines_differ_as_their_schedulers_do() -> None:
    vllm, sglang, trtllm, slora = (rules(name, LORA) for name in ("vllm-0.8", "sglang", "trtllm", "slora"))
    assert (vllm.order, sglang.order, trtllm.order, slora.order) == ("mixed", "prefill_first", "mixed", "prefill_first")
    assert (vllm.admission, sglang.admission, trtllm.admission) == ("blocks", "estimated", "no_evict")
    assert (vllm.chunked, sglang.chunked, trtllm.chunked) == (True, True, False)
    assert (vllm.block_tokens, sglang.block_tokens, trtllm.block_tokens) == (16, 1, 32)
    assert (vllm.async_scheduling, rules("vllm-0.15").async_scheduling) == (False, True)
    assert sglang.adapters.base_takes_place and not vllm.adapters.base_takes_place
    assert sglang.adapters.max_cpu_loras > 10**9 and vllm.adapters.max_cpu_loras == 32
    assert (vllm.adapters.skips, slora.adapters.skips) == (True, False)
    assert slora.receive_steps == 10 and sglang.adapters.drain_after_s == inf


def test_new_token_ratio_falls_as_sglang_s() -> None:
    """0.7 to 0.14 of it in 600 steps, all times the conservativeness."""
    plain, bold = rules("sglang"), rules("sglang", schedule_conservativeness=0.3)
    assert plain.new_token_ratio == 0.7 and plain.least_ratio == pytest.approx(0.098)
    assert plain.ratio_decay == pytest.approx((0.7 - 0.098) / 600)
    assert bold.new_token_ratio == pytest.approx(0.21)


@pytest.mark.slow
def test_slots_cost_what_they_hold_of_the_cache() -> None:
    few, many = rules(lora=LORA), rules(lora=LORA, max_loras=96)
    space = footprint_of(served(deployment(lora=LORA)))
    lost = (few.kv_blocks - many.kv_blocks) * 16
    assert lost == pytest.approx(64 * float(space.kv_tokens_per_slot), rel=0.02)
    assert rules(lora=LORA, max_lora_rank=64).kv_blocks < few.kv_blocks
    assert rules_of(deployment(lora=LORA), ranks=[8, 64]).kv_blocks == rules(lora=LORA, max_lora_rank=64).kv_blocks


@pytest.mark.slow
def test_max_loras_is_the_engine_s_own_where_nobody_says() -> None:
    assert [rules(name, gs.LoraConfig(rank=16)).adapters.max_loras for name in ("vllm", "sglang", "trtllm")] == [
        1,
        8,
        4,
    ]
    assert rules("vllm").adapters.max_loras == 0
    assert rules("vllm", gs.LoraConfig(rank=16, active_adapters=5)).adapters.max_loras == 5
    merged = rules("vllm", gs.LoraConfig(rank=16, strategy="merge")).adapters
    assert (merged.max_loras, merged.max_cpu_loras > 10**9) == (2, True), "the one that is merged, and the next"


@pytest.mark.parametrize(
    ("engine", "flag"),
    [("vllm", "gpu_memory_utilization"), ("sglang", "mem_fraction_static"), ("trtllm", "free_gpu_memory_fraction")],
)
def test_more_memory_is_more_cache(engine: str, flag: str) -> None:
    blocks = [rules(engine, **{flag: share}).kv_blocks for share in (0.5, 0.7, 0.85)]
    assert blocks == sorted(blocks) and blocks[0] < blocks[2]


def test_a_smaller_step_leaves_more_cache_under_an_engine_that_profiles_it() -> None:
    assert rules(max_num_seqs=64).kv_blocks > rules().kv_blocks
    assert rules(max_num_seqs=64).max_num_seqs == 64


def test_settings_take_the_place_of_the_engine_s() -> None:
    found = rules(kv_tokens=10_000, block_size=32, max_model_len=4096, enable_prefix_caching=False, watermark=0.1)
    assert (found.kv_blocks, found.block_tokens, found.max_model_len) == (312, 32, 4096.0)
    assert not found.prefix_cache and found.watermark == 0.1
    assert rules(num_gpu_blocks_override=7, max_model_len=64).kv_blocks == 7
    paused = rules("trtllm", capacity_scheduler_policy="MAX_UTILIZATION", batch_wait_timeout_iters=20)
    assert (paused.admission, paused.shortage, paused.wait_steps) == ("blocks", "pause", 20)
    adapters = rules(lora=LORA, eviction="scored", weights=(1, 2, 3), pinned=[0], max_cpu_loras=64).adapters
    assert (adapters.eviction, adapters.weights, adapters.pinned) == ("scored", (1.0, 2.0, 3.0), (0,))
    assert adapters.max_cpu_loras == 64


def test_a_request_is_no_longer_than_the_cache() -> None:
    assert rules(kv_tokens=1000).max_model_len == 992
    with pytest.raises(InfeasibleError, match=r"limits.max_model_len = 2000 .* holds 992 tokens"):
        rules(kv_tokens=1000, max_model_len=2000)


def test_whole_prompts_fit_into_a_step_where_the_engine_sees_to_it() -> None:
    assert rules("vllm-0.5").max_num_batched_tokens == rules("vllm-0.5").max_model_len
    assert rules("vllm-0.5", max_model_len=4096).max_num_batched_tokens == 4096
    assert rules("trtllm").max_num_batched_tokens == 8192


def test_fewer_tokens_than_sequences_are_refused_as_vllm_does() -> None:
    with pytest.raises(ConfigError, match=r"max_num_batched_tokens \(64\) must be greater than or equal"):
        rules(max_num_seqs=128, max_num_batched_tokens=64)
    assert rules(max_num_batched_tokens=64).max_num_seqs == 64


@pytest.mark.parametrize("given", [{"max_loras": 2000}, {"gpu_memory_utilization": 0.2}])
def test_no_room_for_a_cache_is_told(given: dict[str, Any]) -> None:
    with pytest.raises(InfeasibleError, match=r"leaves no room for a KV cache.* use more devices"):
        rules(lora=LORA, **given)


def test_fewer_adapters_in_the_host_than_slots_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"limits.max_cpu_loras = 8 .* at least max_loras \(32\)"):
        rules(lora=LORA, max_cpu_loras=8)


def test_ranks_need_adapters() -> None:
    with pytest.raises(ConfigError, match="no LoraConfig"):
        rules_of(deployment(), ranks=[8])


@pytest.mark.slow
def test_a_model_that_keeps_a_state_is_limited_by_it() -> None:
    found = rules_of(gs.Deployment("mamba-2.8b", "l40s", engine="vllm"))
    assert 1 <= found.max_num_seqs <= 256 and found.kv_blocks > 10**12


@pytest.mark.parametrize(
    ("engine", "limits", "sizes"),
    [
        ("vllm", {}, (1, 2, 4, *range(8, 256, 8), *range(256, 513, 16))),
        ("vllm", {"max_num_seqs": 16}, (1, 2, 4, 8, 16, 24, 32)),
        ("vllm", {"max_cudagraph_capture_size": 8}, (1, 2, 4, 8)),
        ("vllm", {"cudagraph_capture_sizes": [64, 8]}, (8, 64)),
        ("vllm-0.8", {"max_num_seqs": 16}, (1, 2, 4, *range(8, 513, 8))),
        ("sglang", {}, (1, 2, 4, 8, 12, *range(16, 257, 8))),
        ("sglang", {"cuda_graph_max_bs": 20}, (1, 2, 4, 8, 12, 16, 20)),
        ("trtllm", {}, (*range(1, 33), 64, 128)),
        ("slora", {}, ()),
    ],
)
def test_captured_sizes_are_the_engine_s(engine: str, limits: dict[str, Any], sizes: tuple[int, ...]) -> None:
    assert captured_of(deployment(engine), EngineLimits(**limits))[0] == sizes


def test_who_pads_is_said_by_the_engine() -> None:
    pads = {name: captured_of(deployment(name))[1] for name in ("vllm", "sglang", "trtllm")}
    assert pads == {"vllm": True, "sglang": True, "trtllm": False}
    assert captured_of(deployment("trtllm"), EngineLimits(enable_padding=True))[1]


def test_a_served_deployment_is_compiled_with_its_slots() -> None:
    found = served(deployment(lora=gs.LoraConfig(rank=16)), EngineLimits(max_loras=48, max_lora_rank=64)).lora
    assert found is not None and (found.max_loras, found.max_lora_rank) == (48, 64)
    merged = replace(LORA, strategy="merge")
    assert served(deployment(lora=merged)).lora is merged


def test_without_chunks_a_step_of_vllm_holds_any_prompt() -> None:
    """vllm/config/scheduler.py: max_num_batched_tokens is at least max_model_len unless prompts are cut."""
    whole = rules(device="l40s", enable_chunked_prefill=False, max_model_len=6000)
    assert (whole.max_num_batched_tokens, whole.chunked) == (6000, False)
    with pytest.raises(ConfigError, match=r"max_num_batched_tokens = 2048 .* less than max_model_len \(6,000\)"):
        rules(enable_chunked_prefill=False, max_model_len=6000, max_num_batched_tokens=2048)


def test_passing_over_requests_takes_the_time_of_the_engine_s_scheduler() -> None:
    assert rules("vllm-0.8", LORA).adapters.skip_s == pytest.approx(0.64e-6)
    assert rules("vllm", LORA).adapters.skip_s == rules("vllm-0.5", LORA).adapters.skip_s == 0.0
    assert rules("vllm", LORA, skip_s=1e-6).adapters.skip_s == 1e-6
