"""Prices of steps: what tables add to a compiled step, what they promise, and loads."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import graphsim as gs
from graphsim.analysis.lifecycle import lifecycle_of
from graphsim.errors import ConfigError
from graphsim.serving.engine_limits import EngineLimits
from graphsim.serving.engine_rules import served
from graphsim.serving.prices import StepPrices
from graphsim.serving.pricing import price_of

LORA = gs.LoraConfig(rank=16, max_loras=32)
CASES = {
    "8B, 32 slots, vLLM 0.8": ("llama-3.1-8b", "h100-sxm", "vllm-0.8", LORA),
    "8B, vLLM": ("llama-3.1-8b", "h100-sxm", "vllm", None),
    "8B, 32 slots, SGLang": ("llama-3.1-8b", "h100-sxm", "sglang", LORA),
    "7B on an L40S": ("llama-2-7b", "l40s", "vllm-0.15", None),
    "Mixtral": ("mixtral-8x7b", "h100-sxm", "vllm", None),
}


def deployment(case: str) -> gs.Deployment:
    model, device, engine, lora = CASES[case]
    return gs.Deployment(model, device, engine=engine, lora=lora)


@lru_cache(maxsize=8)
def prices(case: str) -> StepPrices:
    return price_of(deployment(case), mean_prompt=300)


def errors(case: str, draws: int) -> tuple[Any, Any]:
    """Of mixed steps and of generation, against the compiled step itself, for steps as servers have them."""
    draw, price = np.random.default_rng(0), prices(case)
    step = gs.compile_step(served(deployment(case)))
    host = served(deployment(case)).engine.host  # type: ignore[union-attr]
    mixed, decode = np.empty(draws), np.empty(draws)
    for i in range(draws):
        batch, mean, count = int(draw.integers(1, 160)), int(draw.integers(100, 2000)), int(draw.integers(1, 4))
        context, new = batch * mean, draw.integers(1, 600, count)
        pasts = draw.choice([0, 0, 0, 500, 3000], count)
        tokens, pairs = int(new.sum()), float((new * (new + 1) / 2 + new * pasts).sum())
        adapters = int(draw.integers(0, min(32, batch) + 1)) if CASES[case][3] else 0
        named = {"distinct_adapters": float(adapters)} if CASES[case][3] else {}
        rows = {"generating": float(batch), "cache_rows": float(context + batch)}
        direct = step(
            prompt_tokens=float(tokens), prompts=float(count), prompt_pairs=pairs, prompts_ending=float(count),
            prompt_rows=float((new + pasts).sum()), **rows, **named,
        )  # fmt: skip
        direct += host.step_s + host.sequence_s * (batch + count)
        mixed[i] = price.mixed(tokens, pairs, count, count, batch, context, adapters) / direct - 1
        size = price.padded(batch)
        direct = step(generating=float(size), cache_rows=float(context + size), **named)
        direct += host.step_s + host.sequence_s * batch
        decode[i] = price.decode(batch, context, adapters)[0] / direct - 1
    return mixed, decode


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_rounding_adds_little_to_a_compiled_step(case: str) -> None:
    mixed, decode = errors(case, 120)
    assert np.median(np.abs(mixed)) <= 0.003
    assert np.percentile(np.abs(mixed), 95) <= 0.015
    assert np.median(np.abs(decode)) <= 0.0005
    assert np.abs(decode).max() <= 0.025


@pytest.mark.slow
@settings(deadline=None, max_examples=60)
@given(st.integers(1, 700), st.integers(1, 40_000), st.integers(0, 32))
def test_a_run_of_steps_is_what_its_steps_are(batch: int, mean: int, adapters: int) -> None:
    """As long as it says: the time of the k-th step is that of the first and k times the growth."""
    price, adapters = prices("8B, 32 slots, vLLM 0.8"), min(adapters, batch)
    context = batch * mean
    first, growth, valid = price.decode(batch, context, adapters)
    assert valid >= 1 and growth >= 0.0
    for k in {0, valid // 2, valid - 1}:
        assert price.decode(batch, context + k * batch, adapters)[0] == pytest.approx(first + k * growth, rel=1e-9)


@pytest.mark.slow
@settings(deadline=None, max_examples=60, derandomize=True)
@given(st.integers(1, 600), st.integers(10, 4000), st.integers(0, 31), st.integers(1, 3000))
def test_more_work_never_takes_less_time(batch: int, mean: int, adapters: int, new: int) -> None:
    """One more sequence with its context, one more adapter, one more token of a prompt."""
    price, adapters, context = prices("8B, 32 slots, vLLM 0.8"), min(adapters, batch), batch * mean
    pairs = new * (new + 1) / 2
    step = price.decode(batch, context, adapters)[0]
    assert price.decode(batch + 1, context + mean, adapters)[0] >= step * (1 - SLACK)
    if adapters < batch:
        assert price.decode(batch, context, adapters + 1)[0] >= step * (1 - SLACK)
    beside = price.mixed(new, pairs, 1, 1, batch, context, adapters)
    assert beside >= price.decode(batch, context, adapters)[0] * (1 - SLACK)
    assert price.mixed(new, pairs, 1, 1, batch, context, adapters + 1) >= beside * (1 - SLACK)
    assert price.mixed(new + 1, pairs + new + 1, 1, 1, batch, context, adapters) >= beside * (1 - SLACK)
    assert price.mixed(new, pairs, 1, 1, batch + 1, context + mean, adapters) >= beside * (1 - SLACK)


@pytest.mark.parametrize("case", ["8B, 32 slots, vLLM 0.8", "8B, vLLM", "7B on an L40S"])
def test_a_prompt_of_one_more_token_behind_512_rows_takes_no_less_time(case: str) -> None:
    """GEMMs of 513 rows are no faster than those of 512, and from there on no graph is captured."""
    price, adapters = prices(case), 1 if CASES[case][3] else 0
    low, high = (price.mixed(new, new * (new + 1) / 2, 1, 1, 1, 10, adapters) for new in (511, 512))
    assert high >= low * (1 - SLACK)


def test_only_a_captured_step_runs_adapter_kernels_for_nobody() -> None:
    """Without any adapter in it, a step of 513 tokens, which is not captured, takes the time of a server without
    slots; one of 512 takes that of their idle kernels too, and may be the longer one."""
    slots = prices("8B, 32 slots, vLLM 0.8")
    none = price_of(gs.Deployment("llama-3.1-8b", "h100-sxm", engine="vllm-0.8"), mean_prompt=300)
    for new, longer in ((511, 1.2), (512, 1.0)):
        with_slots, without = (price.mixed(new, new * (new + 1) / 2, 1, 1, 1, 10, 0) for price in (slots, none))
        assert with_slots >= longer * without * (1 - SLACK)
    assert with_slots == pytest.approx(without, rel=SLACK)


SLACK = 0.002
"""What a compiled step itself takes less for one more token, at most, where kernels change their tiles."""


def test_a_batch_runs_as_the_next_captured_size() -> None:
    price = prices("8B, vLLM")
    assert [price.padded(batch) for batch in (1, 3, 8, 9, 257, 512, 513)] == [1, 4, 8, 16, 272, 512, 513]
    assert price.decode(9, 9 * 100, 0)[0] == pytest.approx(price.decode(16, 9 * 100, 0)[0])
    assert price.decode(17, 17 * 100, 0)[0] > price.decode(16, 16 * 100, 0)[0]
    alone = price_of(deployment("8B, vLLM"), EngineLimits(pads=False))
    assert alone.padded(9) == 9


def test_a_single_prompt_is_a_compiled_step() -> None:
    price, step = prices("8B, vLLM"), gs.compile_step(deployment("8B, vLLM"))
    for new in (16, 64, 256):
        assert price.mixed(new, new * (new + 1) / 2, 1, 1, 0, 0, 0) == pytest.approx(step(prompt_tokens=new), rel=2e-3)


def test_the_head_runs_for_prompts_that_end() -> None:
    price = prices("8B, vLLM")
    assert price.mixed(256, 256 * 257 / 2, 1, 0, 0, 0, 0) < price.mixed(256, 256 * 257 / 2, 1, 1, 0, 0, 0)


def test_sampling_takes_the_engine_s_time_for_each_token() -> None:
    greedy, sampled = prices("8B, vLLM"), price_of(deployment("8B, vLLM"), mean_prompt=300, samples=True)
    assert sampled.decode(8, 800, 0)[0] - greedy.decode(8, 800, 0)[0] == pytest.approx(8 * 30e-6)
    more = sampled.mixed(64, 2080, 2, 1, 8, 800, 0) - greedy.mixed(64, 2080, 2, 1, 8, 800, 0)
    assert more == pytest.approx(9 * 30e-6)


def test_loads_are_those_of_an_adapter_s_own_rank() -> None:
    price = price_of(deployment("8B, 32 slots, vLLM 0.8"), ranks=[8, 64])
    life = lifecycle_of(gs.Deployment("llama-3.1-8b", "h100-sxm", engine="vllm-0.8", lora=gs.LoraConfig(rank=64)))
    assert price.load(1, from_disk=False) == pytest.approx(life.load_s)
    assert price.load(1, from_disk=True) == pytest.approx(life.load_s + life.warm_disk_s)
    assert price.load(0, from_disk=True) < price.load(1, from_disk=True)
    cold = price_of(deployment("8B, 32 slots, vLLM 0.8"), ranks=[8, 64], disk="cold")
    assert cold.load(1, from_disk=True) == pytest.approx(life.load_s + life.cold_disk_s)


@pytest.mark.slow
def test_larger_ranks_make_longer_steps() -> None:
    for engine in ("vllm", "sglang"):
        low, high = (
            price_of(gs.Deployment("llama-3.1-8b", "h100-sxm", engine=engine, lora=LORA), ranks=ranks)
            for ranks in ([8, 8], [8, 64])
        )
        assert high.decode(32, 32 * 300, 2)[0] > low.decode(32, 32 * 300, 2)[0], engine


@pytest.mark.slow
def test_popular_adapters_count_for_more() -> None:
    """SGLang's kernels meet each adapter's own rank, vLLM's the padded one."""
    for engine, differs in (("sglang", True), ("vllm", False)):
        where = gs.Deployment("llama-3.1-8b", "h100-sxm", engine=engine, lora=LORA)
        small, alike, large = (price_of(where, ranks=[8, 64], shares=shares) for shares in ((9, 1), (1, 1), (1, 9)))
        times = [price.decode(64, 64 * 300, 2)[0] for price in (small, alike, large)]
        assert (times[0] < times[1] < times[2]) == differs, engine
        assert times[1] == pytest.approx(price_of(where, ranks=[8, 64]).decode(64, 64 * 300, 2)[0], rel=1e-9)


def test_fewer_tokens_with_adapters_take_no_longer() -> None:
    where = deployment("8B, 32 slots, SGLang")
    some, all_of_them = (price_of(where, adapter_share=share).decode(64, 64 * 300, 2)[0] for share in (0.25, 1.0))
    assert some < all_of_them


def test_merged_weights_cost_as_the_base_s() -> None:
    merged = price_of(gs.Deployment("llama-3.1-8b", "h100-sxm", lora=gs.LoraConfig(rank=16, strategy="merge")))
    base = price_of(gs.Deployment("llama-3.1-8b", "h100-sxm"))
    assert merged.decode(8, 4000, 1) == base.decode(8, 4000, 0)
    assert merged.mixed(64, 2080, 1, 1, 8, 4000, 1) == base.mixed(64, 2080, 1, 1, 8, 4000, 0)


def test_bad_settings_are_told() -> None:
    with pytest.raises(ConfigError, match="no LoraConfig"):
        price_of(deployment("8B, vLLM"), ranks=[8])
    with pytest.raises(ConfigError, match="expected one for each of 2 adapters"):
        price_of(deployment("8B, 32 slots, SGLang"), ranks=[8, 8], shares=[1.0])
    with pytest.raises(ConfigError, match="disk = 'hot' is not allowed; allowed: warm, cold"):
        price_of(deployment("8B, vLLM"), disk="hot")


def test_one_run_goes_on_with_the_tables_of_another() -> None:
    """Of the same deployment under about the same load, whatever the loads of its adapters."""
    limits = EngineLimits(max_num_seqs=64)
    one, other = (price_of(deployment("8B, vLLM"), limits, mean_prompt=mean) for mean in (300, 310))
    assert one._decode is other._decode and one._mixed is other._mixed
    for different in (EngineLimits(max_num_seqs=32), EngineLimits(max_num_seqs=64, pads=False)):
        assert price_of(deployment("8B, vLLM"), different, mean_prompt=300)._mixed is not one._mixed
    assert price_of(deployment("8B, vLLM"), limits, mean_prompt=900)._mixed is not one._mixed
    assert price_of(deployment("8B, 32 slots, SGLang"), mean_prompt=300)._mixed is not one._mixed


def test_slots_that_nobody_uses_are_not_looked_through() -> None:
    """Two registered adapters in 32 slots: a sixteenth of what all slots in use take."""
    where = deployment("8B, 32 slots, vLLM 0.8")
    few, all_of_them, none = (
        price_of(where, ranks=[16] * count).mixed(300, 300 * 301 / 2, 1, 1, 0, 0, 1) for count in (2, 32, 0)
    )
    assert all_of_them == pytest.approx(none)
    assert all_of_them - few == pytest.approx(300 * 0.15e-6 * 16 * (1 - 2 / 32), rel=0.1)
