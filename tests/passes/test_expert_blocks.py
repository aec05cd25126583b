"""Kernels for adapters on experts: their blocks against rows sorted and padded one by one, and their graphs."""

from __future__ import annotations

from dataclasses import replace
from math import ceil
from typing import Any

import networkx as nx
import numpy as np
import pytest

import graphsim as gs
from graphsim.graph import validate, walk
from graphsim.lora.profile import load_profile
from graphsim.ops.base import COMPUTE, SIDE
from graphsim.ops.lora_expert_kernels import ExpertLoraExpand, ExpertLoraShrink, ExpertLoraSort, ExpertLoraTaken

MODEL, DEVICE = "qwen3-30b-a3b", "h200-sxm"
EXPERTS, CHOSEN = 128, 8
WITH_BLOCKS = ("vllm", "sglang", "sglang-fast")


def lora(**more: Any) -> gs.LoraConfig:
    return gs.LoraConfig(**{"rank": 16, "target_modules": ["attn", "ffn"], "active_adapters": 4, "max_loras": 8} | more)


def graph(engine: Any, tokens: float = 64, **more: Any) -> nx.DiGraph:
    parallelism = more.pop("parallelism", None)
    deployment = gs.Deployment(MODEL, DEVICE, lora=lora(**more), engine=engine, parallelism=parallelism)
    return deployment.decode(tokens, 512)


def kernels(found: nx.DiGraph, kind: type) -> list[Any]:
    return [op for _, op, _ in walk(found) if isinstance(op, kind)]


def drawn_blocks(tokens: int, adapters: int, height: int, draws: int = 10) -> float:
    """Mean blocks of `height` rows where each token picks its experts at random, sorted by adapter and expert."""
    random = np.random.default_rng(3)
    found = []
    for _ in range(draws):
        rows = np.zeros((adapters, EXPERTS))
        for token in range(tokens):
            rows[token % adapters, random.choice(EXPERTS, CHOSEN, replace=False)] += 1
        found.append(np.ceil(rows / height).sum())
    return float(np.mean(found))


@pytest.mark.parametrize(("engine", "height"), [("sglang", 64), ("sglang-fast", 16)])
@pytest.mark.parametrize("tokens", [8, 64, 2048, pytest.param(16384, marks=pytest.mark.slow)])
def test_occupied_blocks_are_those_of_rows_sorted_by_adapter_and_expert(engine: str, height: int, tokens: int) -> None:
    """Within an eighth: between one block a pair and full blocks, half a block of padding is a mean, not a count."""
    shrink = kernels(graph(engine, tokens), ExpertLoraShrink)[
        1
    ]  # the down projection's: one slice, one column of blocks
    draws = 1 if tokens > 1000 else 10
    assert shrink.tiles == pytest.approx(drawn_blocks(tokens, 4, height, draws), rel=0.125)


def test_grids_launch_the_most_blocks_that_rows_may_need() -> None:
    """By hand, 64 tokens with 8 of 128 experts, 8 slots, 4 adapters; shrinks of the down projection.

    SGLang: 8 slots of ceil((512 + 128 · 63) / 64) = 134 blocks; the fast path: ceil((512 + 512 · 15) / 16) = 512;
    vLLM, blocks of 32 rows from 33 tokens on: 4 adapters of ceil((512 + 128 · 31) / 32) = 140.
    """
    for engine, launched in (("sglang", 8 * 134), ("sglang-fast", 512), ("vllm", 4 * 140)):
        shrink = kernels(graph(engine), ExpertLoraShrink)[1]
        assert shrink.tiles + shrink.empty_tiles == pytest.approx(launched)


def test_few_rows_are_blocks_of_their_own_in_vllm() -> None:
    """SPARSITY_FACTOR 8: 16 tokens · 8 rows · 8 = 128 experts · 8 slots are few, 17 are not."""
    few, more = (kernels(graph("vllm", tokens), ExpertLoraShrink)[1] for tokens in (16, 17))
    assert few.tiles == 16 * CHOSEN and few.empty_tiles == 0
    assert more.tiles < 17 * CHOSEN and more.empty_tiles == 4 * ceil((136 + 128 * 15) / 16) - more.tiles


def test_vllm_does_both_products_in_one_kernel_up_to_rank_128() -> None:
    for rank, apart in ((16, 0), (128, 0), (256, 1)):
        found = graph("vllm", rank=rank, max_lora_rank=rank)
        assert [op.launches for op in kernels(found, ExpertLoraExpand)] == [apart] * 2
        assert [op.launches for op in kernels(found, ExpertLoraShrink)] == [1] * 2
    sharded = graph("vllm", fully_sharded_loras=True, parallelism=gs.Parallelism(tp=2))
    assert [op.launches for op in kernels(sharded, ExpertLoraExpand)] == [1] * 2


def test_fully_sharded_pairs_pay_a_gather_and_a_reduction_between_shrink_and_expand() -> None:
    found = graph("vllm", fully_sharded_loras=True, parallelism=gs.Parallelism(tp=4))
    between = [op for n, op, _ in walk(found) if ".lora_shrink.all_" in n and "expert" in n]
    rows = 64 * CHOSEN
    assert [(op.role, op.elems, op.group) for op in between] == [
        ("all_gather", rows * 32, 4.0), ("all_reduce", rows * 16, 4.0)
    ]  # fmt: skip
    up, down = kernels(found, ExpertLoraShrink)
    assert (up.n, up.k) == (32 / 4, 2048) and (down.n, down.k) == (16, 768 / 4)
    wide, narrow = kernels(found, ExpertLoraExpand)
    assert (wide.n, wide.width) == (2 * 768 / 4, 2 * 768 / 4) and (narrow.n, narrow.width) == (2048 / 4, 2048)


def test_rows_are_sorted_once_for_both_products() -> None:
    for engine in WITH_BLOCKS:
        names = [name for name, op, _ in walk(graph(engine)) if isinstance(op, ExpertLoraSort)]
        assert len(names) == 1 and "gate_up" in names[0]


def test_the_fast_path_runs_pairs_beside_the_bases_kernels() -> None:
    found = graph("sglang-fast")
    assert {op.stream for op in kernels(found, ExpertLoraShrink)} == {SIDE}
    assert [op.stream for op in kernels(found, ExpertLoraExpand)] == [SIDE, COMPUTE]
    assert len(kernels(found, ExpertLoraTaken)) == 1
    assert {op.stream for _, op, _ in walk(graph("sglang")) if op.adapter} == {COMPUTE}


@pytest.mark.parametrize("engine", WITH_BLOCKS)
@pytest.mark.parametrize("degrees", [{}, {"tp": 2}, {"tp": 4, "ep": 4}, {"ep": 2}])
def test_their_graphs_are_valid_and_keep_the_traffic_of_the_pairs(engine: str, degrees: dict[str, int]) -> None:
    found = graph(engine, parallelism=gs.Parallelism(**degrees))
    validate(found, "lowered")
    profile = load_profile(engine)
    logical = replace(profile, experts=replace(profile.experts, kernels="separate"))
    plain = graph(logical, parallelism=gs.Parallelism(**degrees))
    for part in ("weight_bytes", "flops"):
        whole, kept = (
            sum(getattr(op.work(), part) * n for name, op, n in walk(one) if "expert_" in name and factor(op))
            for one in (plain, found)
        )
        assert kept == pytest.approx(whole)


def factor(op: Any) -> bool:
    """Whether an operation multiplies by an adapter's weights."""
    return bool(op.adapter and op.adapter_rank)


@pytest.mark.parametrize("engine", WITH_BLOCKS)
def test_without_an_adapter_nothing_is_launched(engine: str) -> None:
    for _, op, _ in walk(graph(engine, active_adapters=0)):
        assert not op.adapter or op.launches == 0


def test_vllm_starts_kernels_on_experts_that_no_adapter_reaches_and_their_blocks_end_at_once() -> None:
    found = graph("vllm", target_modules=["attn"])
    shrinks = kernels(found, ExpertLoraShrink)
    assert [op.launches for op in shrinks] == [1, 1]
    assert all(op.tiles == 0 and op.empty_tiles > 0 and op.work().memory_bytes == 0 for op in shrinks)
    assert not kernels(graph("sglang", target_modules=["attn"]), ExpertLoraShrink)


@pytest.mark.parametrize("engine", WITH_BLOCKS)
def test_a_compiled_step_is_the_simulated_one(engine: str) -> None:
    adapter = lora(active_adapters=3)
    step = gs.compile_step("mixtral-8x7b", DEVICE, lora=adapter, engine=engine)
    simulated = gs.simulate("mixtral-8x7b", DEVICE, 16, 256, 1, lora=adapter, engine=engine)
    assert step(generating=16, cache_rows=16 * 257) == pytest.approx(simulated.tpot_s)
    fewer = replace(adapter, active_adapters=2)
    again = gs.simulate("mixtral-8x7b", DEVICE, 16, 256, 1, lora=fewer, engine=engine)
    assert step(generating=16, cache_rows=16 * 257, distinct_adapters=2) == pytest.approx(again.tpot_s)


@pytest.mark.parametrize("engine", WITH_BLOCKS)
def test_a_factor_that_experts_share_is_read_once_for_each_adapter(engine: str) -> None:
    """Of four adapters, gate's and up's A (2 x 16, 2048) and down's B (2048, 16) in two bytes; the others by pairs."""
    found = graph(engine, 64, shared_outer_factors=True)
    shrinks, expands = kernels(found, ExpertLoraShrink), kernels(found, ExpertLoraExpand)
    assert shrinks[0].work().weight_bytes == 4 * 2 * 2 * 16 * 2048
    assert expands[1].work().weight_bytes == 4 * 2 * 16 * 2048
    apart = graph(engine, 64)
    inner = expands[0], shrinks[1]
    own = kernels(apart, ExpertLoraExpand)[0], kernels(apart, ExpertLoraShrink)[1]
    assert [op.work().weight_bytes for op in inner] == [op.work().weight_bytes for op in own]
    nobody = graph(engine, 64, shared_outer_factors=True, adapter_share=0.0)
    assert not [op for op in kernels(nobody, ExpertLoraShrink) if op.work().weight_bytes]
