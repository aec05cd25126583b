"""Strategies of serving adapters, each through the event loop."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import graphsim as gs
from graphsim.serving.adapter_store import AdapterStore
from graphsim.serving.engine import Engine
from graphsim.serving.fairness import fairness
from graphsim.serving.loop import run
from graphsim.serving.paging import PagedStore
from graphsim.serving.rules import AdapterRules, Rules
from graphsim.serving.run_log import FINISHED, STATUSES, RunLog, StepRun
from graphsim.serving.strategies import MERGED_POLICIES, weights_for
from graphsim.serving.weights import WeightTimes
from graphsim.traffic.table import BASE, RequestTable, request_table
from tests.serving.line_price import LinePrice

TIMES = WeightTimes(merge_s=0.02, unmerge_s=0.02, switch_s=0.03)
PRICE = LinePrice()
RULES = Rules(kv_blocks=400, max_num_batched_tokens=512, max_num_seqs=16, adapters=AdapterRules(max_loras=2))
NAMES = ["dynamic", "mixed", *(f"merged:{policy}" for policy in MERGED_POLICIES)]
SGLANG = replace(
    RULES, order="prefill_first", admission="estimated", shortage="retract",
    adapters=AdapterRules(max_loras=2, preloaded=True, max_cpu_loras=9, base_takes_place=True),
)  # fmt: skip


def traffic(requests: int = 60, rate: float = 6.0, adapters: int = 4, seed: int = 0, base: bool = True) -> RequestTable:
    draw = np.random.default_rng(seed)
    return request_table(
        np.cumsum(draw.exponential(1.0 / rate, requests)), draw.integers(5, 200, requests),
        draw.integers(1, 80, requests), adapter=draw.integers(BASE if base else 0, adapters, requests),
    )  # fmt: skip


def served(table: RequestTable, name: str = "dynamic", rules: Rules = RULES, store: Any = None) -> RunLog:
    log = run(table, rules, PRICE, store=store, weights=weights_for(name, TIMES))
    assert (log.status == STATUSES.index(FINISHED)).all()
    return log


def column(log: RunLog, name: str) -> np.ndarray[Any, Any]:
    return np.array([step[StepRun.COLUMNS.index(name)] for step in log.runs])


@pytest.mark.parametrize("rules", [RULES, SGLANG], ids=["vllm", "sglang"])
@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 1000), slots=st.integers(1, 3))
def test_everybody_is_served(name: str, rules: Rules, seed: int, slots: int) -> None:
    rules = replace(rules, adapters=replace(rules.adapters, max_loras=slots))
    log = served(traffic(40, seed=seed), name, rules)
    assert (log.finished_s >= log.first_token_s).all() and (log.first_token_s > log.admitted_s).all()
    if name.startswith("merged") and name != "merged:credits":
        together = set()
        for step in range(len(log.runs)):
            together.add(int(column(log, "adapters")[step]))
        assert together <= {0, 1}


@pytest.mark.parametrize("name", [name for name in NAMES if name != "dynamic"])
def test_a_single_adapter_is_served_as_the_base_model_after_one_merge(name: str) -> None:
    table = traffic(adapters=1, base=False)
    alone = served(table, name)
    plain = served(replace(table, adapter=np.full(len(table), BASE)))
    assert [adapter for _, _, adapter in alone.switches] == [0]
    if name != "mixed":
        once = TIMES.merge_s + PRICE.load(0, True)
        assert alone.switches[0][1] == pytest.approx(once)
        assert column(alone, "seconds").sum() == pytest.approx(column(plain, "seconds").sum() + once, rel=0.03)
        assert (alone.finished_s - plain.finished_s).max() < 10 * once


def test_merged_strategies_pay_for_their_switches_and_for_nothing_beside() -> None:
    table = traffic(80)
    for policy in ("greedy", "fcfs", "longest_queue", "time_slice"):
        log = served(table, f"merged:{policy}")
        stalls = column(log, "stall_s").sum()
        assert stalls == pytest.approx(sum(seconds for _, seconds, _ in log.switches))
    switches = {policy: len(served(table, f"merged:{policy}").switches) for policy in ("greedy", "fcfs")}
    assert switches["greedy"] < switches["fcfs"]


def test_dynamic_weights_change_nothing() -> None:
    table = traffic()
    plain = run(table, RULES, PRICE, store=AdapterStore(RULES.adapters, PRICE.load))
    assert (plain.finished_s == served(table).finished_s).all()


@pytest.mark.parametrize("rules", [RULES, SGLANG], ids=["vllm", "sglang"])
def test_overlapped_loads_stall_nobody(rules: Rules) -> None:
    slow = LinePrice(load_s=0.3, disk_s=0.0)
    table = traffic(80, base=False)
    logs = {}
    for loads in ("stall", "overlapped"):
        its = replace(rules, adapters=replace(rules.adapters, loads=loads, max_loras=3))
        logs[loads] = run(table, its, slow, store=AdapterStore(its.adapters, slow.load))
        assert (logs[loads].status == STATUSES.index(FINISHED)).all()
    assert column(logs["overlapped"], "stall_s").sum() == 0.0 < column(logs["stall"], "stall_s").sum()
    for start, seconds, adapter, _ in logs["overlapped"].loads:
        mine = table.adapter == adapter
        first = logs["overlapped"].admitted_s[mine]
        assert not ((first > start) & (first < start + seconds - 1e-9)).any()


def test_an_adapter_fetched_ahead_of_its_turn_is_waited_for_less() -> None:
    slow = LinePrice(load_s=0.2, disk_s=0.0)
    table = traffic(80, rate=20.0, adapters=6, base=False)
    stalls = {}
    for ahead in (0, 2):
        rules = replace(RULES, max_num_seqs=4, adapters=AdapterRules(max_loras=4, max_cpu_loras=8, prefetch=ahead))
        log = run(table, rules, slow, store=AdapterStore(rules.adapters, slow.load))
        assert (log.status == STATUSES.index(FINISHED)).all()
        stalls[ahead] = column(log, "stall_s").sum()
    assert stalls[2] < stalls[0]


def hogged() -> RequestTable:
    """Two adapters whose requests never stop coming, and one with a few."""
    often = np.arange(0.0, 40.0, 0.25)
    rare = np.array([2.0, 12.0, 22.0])
    arrival, adapter = np.concatenate([often, rare]), np.concatenate([np.arange(len(often)) % 2, np.full(3, 2)])
    order = np.argsort(arrival, kind="stable")
    return request_table(arrival[order], np.full(len(order), 50), np.full(len(order), 120), adapter=adapter[order])


def test_the_drainer_ends_the_starvation_of_an_adapter() -> None:
    waits, index = {}, {}
    for after_s in (np.inf, 3.0):
        rules = replace(SGLANG, adapters=replace(SGLANG.adapters, drain_after_s=after_s))
        log = run(hogged(), rules, PRICE, store=AdapterStore(rules.adapters, PRICE.load))
        assert (log.status == STATUSES.index(FINISHED)).all()
        found = fairness(hogged(), log)
        waits[after_s], index[after_s] = found.longest_wait_s[2], found.jain_index
    assert waits[np.inf] > 35.0 and waits[3.0] < 3.0 + 2.5  # three seconds, and the time of the drained one's requests
    assert index[3.0] > index[np.inf]


@pytest.mark.parametrize("rules", [RULES, SGLANG], ids=["vllm", "sglang"])
@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 1000))
def test_adapters_in_the_cache_take_blocks_and_give_them_back(rules: Rules, seed: int) -> None:
    rules = replace(rules, kv_blocks=120, adapters=replace(rules.adapters, max_loras=8))
    store = PagedStore(rules.adapters, PRICE.load, [10, 20, 30, 40])
    log = served(traffic(40, seed=seed), rules=rules, store=store)
    assert (column(log, "kv_blocks") <= rules.kv_blocks).all()
    pool = store.pool
    assert pool.available == rules.kv_blocks and 0 <= pool.idle_adapter_blocks <= rules.kv_blocks
    assert pool.idle_adapter_blocks == sum(store.blocks[adapter] for adapter in store.slots if adapter != BASE)


def test_unified_paging_serves_more_adapters_at_a_time_than_slots_of_the_same_memory() -> None:
    table = traffic(120, rate=30.0, adapters=6, base=False)
    slots = replace(RULES, kv_blocks=400 - 2 * 40, adapters=AdapterRules(max_loras=2))
    paged = replace(RULES, kv_blocks=400, adapters=AdapterRules(max_loras=6))
    apart = run(table, slots, PRICE, store=AdapterStore(slots.adapters, PRICE.load))
    together = run(table, paged, PRICE, store=PagedStore(paged.adapters, PRICE.load, [10] * 6))
    assert column(together, "adapters").max() > 2 == column(apart, "adapters").max()
    assert together.end_s < apart.end_s


LOOKED_AT = {
    "drained": (SGLANG, {"drain_after_s": 1.0}, "dynamic"),
    "overlapped": (SGLANG, {"loads": "overlapped"}, "dynamic"),
    "overlapped and drained": (RULES, {"loads": "overlapped", "drain_after_s": 1.0}, "dynamic"),
    "fetched ahead": (RULES, {"prefetch": 2, "max_loras": 3}, "dynamic"),
    **{f"merged:{name}": (RULES, {}, f"merged:{name}") for name in ("greedy", "fcfs", "longest_queue", "time_slice")},
}


@pytest.mark.parametrize(("rules", "changed", "name"), LOOKED_AT.values(), ids=LOOKED_AT)
@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 1000))
def test_looking_at_every_step_decides_nothing_else(
    rules: Rules, changed: dict[str, Any], name: str, seed: int
) -> None:
    rules = replace(rules, adapters=replace(rules.adapters, **changed))
    slow, table = LinePrice(load_s=0.15), traffic(40, rate=10.0, seed=seed)

    def seen() -> RunLog:
        store = AdapterStore(rules.adapters, slow.load)
        return run(table, rules, slow, store=store, weights=weights_for(name, TIMES))

    at_events = seen()
    with pytest.MonkeyPatch.context() as patched:
        end = Engine._end_decode

        def look_again(engine: Any) -> None:
            end(engine)
            engine.scheduler.batch.retry = True

        patched.setattr(Engine, "_undisturbed", lambda engine: (1, np.inf))
        patched.setattr(Engine, "_end_decode", look_again)
        at_steps = seen()
    assert len(at_steps.runs) >= len(at_events.runs)
    assert at_steps.finished_s == pytest.approx(at_events.finished_s, abs=1e-9)


@pytest.mark.parametrize(
    "more", [{"prefill_replicas": 1}, {"speculation": gs.Speculation(draft="ngram", tokens=2, acceptance=0.5)}]
)
def test_refusals_name_a_strategy_as_it_is_asked_for(more: dict[str, Any]) -> None:
    traffic = gs.Traffic.poisson(rate=1, requests=2, input_tokens=9, output_tokens=2, adapters=2)
    with pytest.raises(gs.ConfigError, match="strategy = 'paged' is not simulated"):
        gs.serve("gpt-2", "l40s", traffic, lora=gs.LoraConfig(), strategy="paged", **more)
