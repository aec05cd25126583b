"""Laws of slots, tiers, loads and evictions of adapters."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from math import inf
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphsim.errors import ConfigError
from graphsim.serving.adapter_store import AdapterStore
from graphsim.serving.rules import EVICTIONS, AdapterRules
from graphsim.traffic.table import BASE


def load_s(adapter: int, from_disk: bool) -> float:
    return 0.01 * (adapter + 1) + (0.3 if from_disk else 0.0)


@st.composite
def visits(draw: st.DrawFn) -> list[list[int]]:
    """Adapters of the batch, step after step."""
    step = st.lists(st.integers(0, 7), min_size=0, max_size=4, unique=True)
    return draw(st.lists(step, min_size=1, max_size=40))


@st.composite
def rules(draw: st.DrawFn) -> AdapterRules:
    slots = draw(st.integers(1, 6))
    return AdapterRules(
        max_loras=slots, max_cpu_loras=draw(st.integers(0, 8)), eviction=draw(st.sampled_from(EVICTIONS)),
        prefetch=draw(st.integers(0, 3)), preloaded=draw(st.booleans()), weights=(0.45, 0.1, 0.45),
        pinned=tuple(draw(st.lists(st.integers(0, 7), max_size=slots - 1, unique=True))),
    )  # fmt: skip


SIZES = [8.0, 16.0, 32.0, 64.0, 8.0, 8.0, 16.0, 8.0]


class Watched(AdapterStore):
    """A store that restates, at every eviction, which adapter has to leave."""

    left: list[int]
    used: Counter[int]
    last: dict[int, float]

    def __init__(self, *args: Any, **named: Any) -> None:
        self.left, self.used, self.last = [], Counter(), {}
        super().__init__(*args, **named)

    def use(self, adapter: int, now: float, busy: Any) -> float:
        found = super().use(adapter, now, busy)
        self.used[adapter] += 1
        self.last[adapter] = now
        return found

    def touch(self, adapter: int, now: float) -> None:
        super().touch(adapter, now)
        self.last[adapter] = now

    def _leaves(self, tier: Any, stays: Any, now: float) -> int | None:
        found = super()._leaves(tier, stays, now)
        assert found == self.expected(tier, stays, now)
        if found is not None:
            self.left.append(found)
        return found

    def expected(self, tier: Any, stays: Any, now: float) -> int | None:
        may = [adapter for adapter in tier if adapter not in stays]
        last = {adapter: max(self.last.get(adapter, 0.0), tier[adapter].entered_s) for adapter in may}
        most_used = max((self.used[a] for a in may), default=0) or 1
        largest, oldest = max((SIZES[a] for a in may), default=1.0), max((now - last[a] for a in may), default=0) or 1.0
        worth = {
            "lru": lambda a: last[a],
            "fifo": lambda a: tier[a].entered_s,
            "lfu": lambda a: self.used[a],
            "size": lambda a: self.used[a] * SIZES[a],
            "scored": lambda a: (
                0.45 * self.used[a] / most_used + 0.1 * (1 - (now - last[a]) / oldest) + 0.45 * SIZES[a] / largest
            ),
        }[self.rules.eviction]
        ranked = sorted(may, key=lambda a: (worth(a), last[a], a))
        return ranked[0] if ranked else None


def run(store: AdapterStore, steps: list[list[int]]) -> int:
    """Goes through steps as a loop does; gives how often an adapter joined a batch."""
    now, joined, busy = 0.0, 0, set[int]()
    for step in steps:
        for gone in sorted(busy - set(step)):
            busy.discard(gone)
            store.touch(gone, now)
        admitted = []
        for adapter in step:
            if adapter not in busy and store.room_for(adapter, busy, now):
                busy.add(adapter)
                admitted.append(adapter)
        stall = 0.0
        for adapter in admitted:
            there = adapter in store.slots and store.ready_s(adapter, now) == now
            seconds = store.use(adapter, now, busy)
            assert seconds == 0.0 if there else seconds > 0.0 or store.rules.prefetch
            stall += seconds
            joined += 1
        assert all(store.ready_s(adapter, now) <= now + stall + 1e-12 for adapter in admitted)
        now += stall + 0.05
        assert busy <= set(store.slots) and set(store.rules.pinned) <= set(store.slots)
        assert len(store.slots) <= store.rules.max_loras and len(store.host) <= store.host_capacity
        assert set(store.slots) <= set(store.host)
        store.prefetch([adapter for other in steps for adapter in other], now, busy)
    return joined


@settings(max_examples=80, deadline=None)
@given(rules(), visits())
def test_slots_and_tiers_keep_their_laws_under_every_policy(given_rules: AdapterRules, steps: list[list[int]]) -> None:
    store = Watched(given_rules, load_s, SIZES)
    joined = run(store, steps)
    assert sum(store.hits.values()) + sum(store.misses.values()) == joined
    assert len(store.loads) >= sum(store.misses.values())
    if not given_rules.prefetch:
        assert len(store.loads) == sum(store.misses.values())
        assert sum(store.stall_s.values()) == pytest.approx(sum(seconds for _, seconds, _, _ in store.loads))
    ends = [start + seconds for start, seconds, _, _ in store.loads]
    assert all(start >= end - 1e-12 for (start, _, _, _), end in zip(store.loads[1:], ends, strict=False))
    assert all(seconds == load_s(adapter, bool(disk)) for _, seconds, adapter, disk in store.loads)
    assert not set(given_rules.pinned) & set(store.left)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 7), max_size=60), st.integers(1, 7))
def test_more_slots_never_load_more_often_under_lru(asked: list[int], slots: int) -> None:
    def loads(count: int) -> int:
        store = AdapterStore(AdapterRules(max_loras=count), load_s)
        run(store, [[adapter] for adapter in asked])
        return len(store.loads)

    assert loads(slots + 1) <= loads(slots)


def test_an_adapter_comes_from_disk_once_and_then_from_the_hosts_memory() -> None:
    store = AdapterStore(AdapterRules(max_loras=1, max_cpu_loras=2), load_s)
    assert store.use(0, 0.0, {0}) == pytest.approx(0.31)
    assert store.use(1, 1.0, {1}) == pytest.approx(0.32)
    assert store.use(0, 2.0, {0}) == pytest.approx(0.01)
    assert [disk for _, _, _, disk in store.loads] == [1, 1, 0]
    assert store.use(2, 3.0, {2}) == pytest.approx(0.33)  # 1 leaves the host's memory, in which 0 was used later
    assert set(store.host) == {0, 2}


def test_preloaded_adapters_are_never_read_from_disk_while_they_fit() -> None:
    store = AdapterStore(AdapterRules(max_loras=1, max_cpu_loras=2, preloaded=True), load_s)
    assert [store.use(adapter, adapter, {adapter}) for adapter in (0, 1)] == pytest.approx([0.01, 0.02])
    assert store.use(2, 2.0, {2}) == pytest.approx(0.33)


def test_several_loads_of_one_step_are_waited_for_one_after_the_other() -> None:
    store = AdapterStore(AdapterRules(max_loras=3), load_s)
    assert [store.use(adapter, 5.0, {0, 1}) for adapter in (0, 1)] == pytest.approx([0.31, 0.32])
    assert store.loads == [(5.0, pytest.approx(0.31), 0, 1), (pytest.approx(5.31), pytest.approx(0.32), 1, 1)]


def test_overlapped_loads_queue_on_the_link_and_hold_their_slots() -> None:
    store = AdapterStore(AdapterRules(max_loras=2, max_cpu_loras=3, loads="overlapped", preloaded=True), load_s)
    assert store.ready_s(0, 0.0) == inf
    assert [store.fetch(adapter, 0.0, ()) for adapter in (0, 1)] == pytest.approx([0.01, 0.03])
    assert store.fetch(2, 0.005, ()) == inf and store.next_ready_s(0.005) == pytest.approx(0.01)
    assert not store.room_for(2, (), 0.005) and store.room_for(2, (), 0.02)
    assert store.use(0, 0.02, {0}) == 0.0
    assert store.fetch(2, 0.025, {0}) == inf  # one slot is in use, and the other one's load has not ended
    assert store.fetch(2, 0.035, {0}) == pytest.approx(0.065)
    assert set(store.slots) == {0, 2} and store.misses == Counter({0: 1})


def test_an_adapter_fetched_ahead_of_its_turn_is_a_hit_or_waits_for_the_rest_of_its_load() -> None:
    store = AdapterStore(AdapterRules(max_loras=2, prefetch=2), load_s)
    store.prefetch([BASE, 3, 3, 4, 5], 0.0)
    assert set(store.slots) == {3, 4}
    assert store.use(4, 0.5, {4}) == pytest.approx(0.34 + 0.35 - 0.5)
    assert store.hits == Counter({4: 1}) and len(store.loads) == 2
    store.touch(4, 1.0)
    store.prefetch([5], 2.0)
    assert 5 not in store.slots  # nothing free
    store.prefetch([5, 3], 2.0, busy=())
    assert set(store.slots) == {3, 5}


def test_the_base_models_own_place_is_given_up_last_and_costs_no_load() -> None:
    store = AdapterStore(AdapterRules(max_loras=2, base_takes_place=True), load_s)
    assert store.use(BASE, 0.0, {BASE}) == 0.0 and not store.loads
    store.use(0, 1.0, {0})
    store.use(1, 2.0, {1})
    assert set(store.slots) == {BASE, 1}
    store.use(0, 3.0, {0, 1})
    assert set(store.slots) == {0, 1}


def test_requests_that_join_count_for_the_frequency() -> None:
    store = AdapterStore(AdapterRules(max_loras=2, eviction="lfu"), load_s)
    store.use(0, 0.0, {0})
    store.join(0)
    for now in (1.0, 2.0):
        store.use(1, now, {1})
    store.touch(0, 1.5)
    store.use(2, 3.0, {2})
    assert set(store.slots) == {1, 2}  # two uses each, 0 longer ago
    assert store.hits == Counter({0: 1, 1: 1})


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"eviction": "lfru"}, "eviction = 'lfru' is not known; did you mean"),
        ({"pinned": (0, 1)}, "pin at most 1"),
        ({"pinned": (9,)}, "pinned adapter 9 does not exist; there are 8"),
    ],
)
def test_rules_that_no_engine_can_keep_are_refused(changed: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        AdapterStore(replace(AdapterRules(max_loras=2), **changed), load_s, SIZES)
