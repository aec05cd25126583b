"""Memory of adapter slots: equal to what an engine reported, inverse of one another, and by module."""

from __future__ import annotations

import numpy as np
import pytest

import graphsim as gs
from graphsim.analysis.slots import adapter_footprint, adapters_that_fit, footprint, kv_tokens_left
from graphsim.deployment.allocator import allocated_bytes
from tests.paths import REFERENCE

GIB, MIB = 2**30, 2**20


def test_every_measured_loading_is_within_a_thousandth_and_kv_tokens_within_two_hundredths() -> None:
    pd = pytest.importorskip("pandas")
    path = REFERENCE / "lora_memory.csv"
    if not path.exists():
        pytest.skip("the reference data is not at hand")
    for row in pd.read_csv(path).itertuples():
        lora = gs.LoraConfig(
            rank=8, target_modules="all-linear", max_loras=row.max_loras, max_lora_rank=row.max_lora_rank
        )
        found = footprint(row.model, "h100-64gb", lora, engine="vllm-0.8")
        assert found.loading_bytes / GIB == pytest.approx(row.model_loading_gib, rel=1e-3)
        if row.kv_cache_tokens == row.kv_cache_tokens:
            assert found.kv_tokens == pytest.approx(row.kv_cache_tokens, rel=0.02)


def test_slots_cost_concurrency() -> None:
    asked = {"rank": 16, "target_modules": "all-linear"}
    few, many = (footprint("llama-3.1-8b", "h100-sxm", gs.LoraConfig(**asked, max_loras=n)) for n in (4, 68))
    assert few.concurrency(2000) == np.floor(few.kv_tokens / 2000)
    lost = (few.kv_tokens - many.kv_tokens) / 2000
    assert 64 * few.concurrency_per_slot(2000) == pytest.approx(lost, rel=0.02)  # the allocator's rounding
    assert few.concurrency(np.array([1000, 2000])).tolist() == [few.concurrency(1000), few.concurrency(2000)]
    with pytest.raises(gs.ConfigError, match="tokens = 0 is not allowed; expected a number from 1"):
        few.concurrency(0)


def test_a_slot_is_the_closed_form_of_its_shapes() -> None:
    """R b sum over layers and slices of (in + out): vLLM's buffers of Qwen2.5-7B, which has no embedding slots."""
    found = footprint("qwen2.5-7b", "h100-64gb", gs.LoraConfig(max_loras=1, max_lora_rank=1, rank=1))
    hidden, kv, wide = 3584, 512, 18944
    per_layer = (2 * hidden + hidden + kv + hidden + kv) + 2 * hidden + 2 * (hidden + wide) + (wide + hidden)
    assert found.slot_bytes == 28 * 2 * per_layer == 5_046_272


def test_sglang_reserves_what_adapters_target_only() -> None:
    lora = gs.LoraConfig(rank=8, max_lora_rank=16, max_loras=4, target_modules=["q_proj", "v_proj"])
    few = footprint("llama-3.1-8b", "h100-sxm", lora, engine="sglang")
    all_ = footprint("llama-3.1-8b", "h100-sxm", lora, engine="vllm")
    assert few.slot_bytes == 32 * 2 * 16 * (4096 + 4096 + 4096 + 1024)
    assert all_.slot_bytes > 6 * few.slot_bytes


@pytest.mark.parametrize("engine", ["vllm", "sglang", "reference"])
@pytest.mark.parametrize("parallelism", [gs.Parallelism(), gs.Parallelism(tp=4), gs.Parallelism(pp=2)])
def test_adapters_that_fit_is_the_inverse_of_kv_tokens_left(engine: str, parallelism: gs.Parallelism) -> None:
    lora = gs.LoraConfig(rank=16)
    most = adapters_that_fit("llama-3.1-8b", "h100-sxm", 200_000, lora, engine=engine, parallelism=parallelism)
    assert most > 1

    def left(slots: float) -> float:
        many = gs.LoraConfig(rank=16, max_loras=slots)
        return float(kv_tokens_left("llama-3.1-8b", "h100-sxm", many, engine=engine, parallelism=parallelism))

    assert left(int(most)) >= 200_000 > left(int(most) + 1)


@pytest.mark.parametrize("engine", ["vllm", "sglang", "peft"])
@pytest.mark.parametrize(("model", "tp"), [("llama-3.1-8b", 8), ("qwen3-30b-a3b", 4), ("gpt-oss-20b", 2)])
def test_so_it_is_where_thousands_of_slots_are_rounded_to_blocks(engine: str, model: str, tp: int) -> None:
    """5,001 tokens take whole blocks of the cache, and each slot's tensors whole blocks of the allocator."""
    asked = {"rank": 16, "target_modules": ["attn"], "max_lora_rank": 32}
    deployed = {"engine": engine, "parallelism": gs.Parallelism(tp=tp)}
    most = adapters_that_fit(model, "h200-sxm", 5_001, gs.LoraConfig(**asked), **deployed)
    left = [
        float(kv_tokens_left(model, "h200-sxm", gs.LoraConfig(**asked, max_loras=int(most) + more), **deployed))
        for more in (0, 1)
    ]
    assert left[0] >= 5_001 > left[1]


def test_more_kv_tokens_leave_fewer_slots_and_too_many_are_refused() -> None:
    counts = [adapters_that_fit("llama-3.1-8b", "h100-sxm", tokens) for tokens in (0, 100_000, 300_000, 400_000)]
    assert sorted(counts, reverse=True) == counts and counts[0] > counts[-1]
    with pytest.raises(gs.InfeasibleError, match="do not fit beside 'llama-3.1-8b' on 'h100-sxm'"):
        adapters_that_fit("llama-3.1-8b", "h100-sxm", 10**7)
    with pytest.raises(gs.ConfigError, match="kv_tokens = -1"):
        adapters_that_fit("llama-3.1-8b", "h100-sxm", -1)


def test_a_footprint_by_module_adds_up_to_the_adapter() -> None:
    lora = gs.LoraConfig(rank=16, target_modules=["q_proj", "v_proj", "down_proj"])
    table = adapter_footprint("llama-3.1-8b", lora)
    assert table["parameters"].sum() == gs.lora_parameters("llama-3.1-8b", lora)
    assert table["bytes"].sum() == 2 * table["parameters"].sum()
    assert set(table["module"]) == {"q_proj", "v_proj", "down_proj"}


@pytest.mark.parametrize(
    ("requests", "blocks"),
    [
        ([1], 512),
        ([512, 513], 512 + 1024),
        ([5 * MIB] * 4, 20 * MIB),
        ([6 * MIB] * 3 + [1.5 * MIB], 18 * MIB + 2 * MIB),  # the half MiB that is left is not split off
        ([21 * MIB], 22 * MIB),
        ([10 * MIB, 11 * MIB], 10 * MIB + 12 * MIB),
    ],
)
def test_blocks_are_those_of_the_caching_allocator(requests: list[float], blocks: int) -> None:
    assert allocated_bytes(requests) == blocks


def test_adapters_in_the_hosts_memory_are_whole_and_unpadded_for_every_device() -> None:
    lora = gs.LoraConfig(rank=16, max_loras=4, max_lora_rank=64)
    for tp in (1, 4):
        found = footprint(
            "llama-3.1-8b", "h100-sxm", lora, parallelism=gs.Parallelism(tp=tp), host_adapters=np.array([0.0, 100.0])
        )
        assert list(found.host_bytes) == [0, 100 * 2 * gs.lora_parameters("llama-3.1-8b", lora)]
    with pytest.raises(gs.ConfigError, match="host_adapters = -1"):
        footprint("llama-3.1-8b", "h100-sxm", lora, host_adapters=-1)
