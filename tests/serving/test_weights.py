"""Laws of strategies that merge adapters into the weights."""

from __future__ import annotations

from math import inf
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphsim.errors import ConfigError
from graphsim.serving.adapter_store import AdapterStore
from graphsim.serving.credits import Credits
from graphsim.serving.merged import Greedy, InOrder, LongestQueue, TimeSlice
from graphsim.serving.mixture import Mixture
from graphsim.serving.rules import AdapterRules
from graphsim.serving.strategies import MERGED_POLICIES, weights_for
from graphsim.serving.weights import Demand, MergedPrice, Weights, WeightTimes
from graphsim.traffic.table import BASE
from tests.serving.one_step_at_a_time import STEP_S, served

TIMES = WeightTimes(merge_s=0.02, unmerge_s=0.03, switch_s=0.04)
NAMES = ["dynamic", "mixed", *(f"merged:{policy}" for policy in MERGED_POLICIES)]
LOAD_S = 0.01


def store(slots: int = 2, **rules: object) -> AdapterStore:
    return AdapterStore(AdapterRules(max_loras=slots, **rules), lambda adapter, from_disk: LOAD_S)  # type: ignore[arg-type]


requests_strategy = st.lists(
    st.tuples(st.floats(0, 20).map(lambda x: round(x, 2)), st.integers(BASE, 3), st.integers(1, 12)), max_size=25
)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=30, deadline=None)
@given(requests=requests_strategy, slots=st.integers(1, 3))
def test_everybody_is_served_under_every_strategy(
    name: str, requests: list[tuple[float, int, int]], slots: int
) -> None:
    weights = weights_for(name, TIMES)
    found = served(weights, store(slots), requests)
    assert sorted(found.ended) == list(range(len(requests)))
    for merged, adapters, beside in found.batches:
        if name.startswith("merged") and (merged != BASE or name != "merged:credits"):
            assert adapters == (merged,) and beside == 0
        if merged == BASE and name in ("dynamic", "mixed", "merged:credits"):
            assert beside == len(set(adapters) - {BASE})
        if name == "mixed" and merged != BASE:
            others = set(adapters) - {merged}
            assert beside == (len(others - {BASE}) + 1 if others else 0)
    assert sum(seconds for _, seconds, _ in weights.switches) <= found.stall_s + 1e-9


@pytest.mark.parametrize("name", [name for name in NAMES if name != "dynamic"])
def test_a_single_adapter_costs_one_merge_and_runs_as_the_base_does(name: str) -> None:
    requests = [(0.3 * i, 0, 5) for i in range(20)]
    weights, base = weights_for(name, TIMES), weights_for("dynamic", TIMES)
    found = served(weights, store(), requests)
    plain = served(base, store(), [(arrival, BASE, steps) for arrival, _, steps in requests])
    assert len(weights.switches) == 1
    late = TIMES.merge_s + LOAD_S + STEP_S  # at most a step more, for those that arrive in between
    assert all(end <= plain.ended[request] + late + 1e-9 for request, end in found.ended.items())
    first = next(i for i, (merged, _, _) in enumerate(found.batches) if merged == 0)
    assert all(beside == 0 for _, _, beside in found.batches[first:])


def test_base_requests_alone_never_touch_the_weights() -> None:
    for name in NAMES:
        weights = weights_for(name, TIMES)
        served(weights, store(), [(0.2 * i, BASE, 3) for i in range(10)])
        assert not weights.switches


def demand(waiting: dict[int, tuple[int, float]], running: dict[int, int], **more: int) -> Demand:
    return Demand(
        waiting={adapter: count for adapter, (count, _) in waiting.items()},
        waiting_since={adapter: since for adapter, (_, since) in waiting.items()}, running=running, **more,
    )  # fmt: skip


def merged_at(weights: Weights, adapter: int) -> Weights:
    weights.merged = adapter
    return weights


def test_greedy_stays_while_its_adapter_has_requests() -> None:
    weights = merged_at(Greedy(TIMES), 0)
    assert weights.plan(1.0, demand({0: (1, 0.9), 1: (9, 0.0)}, {}), store()) == 0.0 and weights.admits(0)
    assert weights.plan(1.0, demand({1: (9, 0.2), 2: (1, 0.1)}, {0: 1}), store()) == 0.0 and not weights.admits(1)
    weights.plan(1.0, demand({1: (9, 0.2), 2: (1, 0.1)}, {}), store())
    assert weights.merged == 2 and weights.admits(2) and not weights.admits(1)


def test_in_order_lets_nobody_in_ahead_of_an_older_request() -> None:
    weights = merged_at(InOrder(TIMES), 0)
    weights.plan(1.0, demand({0: (5, 0.5), 1: (1, 0.4)}, {0: 2}), store())
    assert weights.merged == 0 and not weights.admits(0)  # drains
    weights.plan(2.0, demand({0: (5, 0.5), 1: (1, 0.4)}, {}), store())
    assert weights.merged == 1


def test_the_longest_queue_counts_running_requests_too() -> None:
    weights = merged_at(LongestQueue(TIMES), 0)
    weights.plan(1.0, demand({0: (1, 0.5), 1: (3, 0.4)}, {0: 2}), store())
    assert weights.admits(0)
    weights.plan(1.0, demand({0: (1, 0.5), 1: (4, 0.4)}, {0: 2}), store())
    assert not weights.admits(0)


def test_time_slices_go_round() -> None:
    weights, slots = TimeSlice(TIMES, slice_s=2.0), store(3)
    turns = []
    for now in (0.0, 1.0, 2.2, 4.5, 6.8, 7.0):
        weights.plan(now, demand({0: (1, 0.0), 2: (1, 0.0), BASE: (1, 0.0)}, {}), slots)
        turns.append(weights.merged)
    assert turns == [0, 0, 2, BASE, 0, 0]
    assert weights.next_s(7.0) == pytest.approx(6.8 + TIMES.merge_s + 2.0)
    weights.plan(20.0, demand({0: (3, 0.0)}, {}), slots)
    assert weights.merged == 0 and weights.next_s(20.0) == inf  # nobody else waits


def test_a_switch_waits_for_both_adapters_and_takes_one_pass_where_both_have_a_slot() -> None:
    for slots, seconds in ((2, TIMES.switch_s), (1, TIMES.unmerge_s + TIMES.merge_s)):
        weights, held = merged_at(Greedy(TIMES), 0), store(slots)
        held.use(0, 0.0, {0})
        assert weights.plan(5.0, demand({1: (1, 0.0)}, {}), held) == pytest.approx(LOAD_S + seconds)
        assert weights.switches == [(5.0, pytest.approx(LOAD_S + seconds), 1)]


def test_times_follow_the_way_in_which_weights_change() -> None:
    lifecycle = SimpleNamespace(merge_s=2.0, unmerge_s=3.0, switch_s=4.0, restore_s=1.0)
    ways = {way: WeightTimes.of(lifecycle, way) for way in ("switch", "unmerge", "restore")}
    assert [ways[way].change_s(0, 1, True) for way in ways] == [4.0, 5.0, 3.0]
    assert [ways[way].change_s(0, BASE, True) for way in ways] == [3.0, 3.0, 1.0]
    assert {times.change_s(BASE, 1, True) for times in ways.values()} == {2.0}
    assert ways["switch"].change_s(1, 1, True) == 0.0
    with pytest.raises(ConfigError, match="changing weights = 'swap' is not known; .*allowed: restore"):
        WeightTimes.of(lifecycle, "swap")


def test_credits_merge_only_what_dominates_and_unmerge_when_others_come() -> None:
    weights, slots = Credits(TIMES, merged_step_s=0.01, unmerged_step_s=0.02), store(4)
    weights.plan(0.0, demand({0: (3, 0.0), 1: (1, 0.0)}, {}, places=8), slots)
    assert weights.merged == BASE and weights.admits(1)  # three of four are not all
    weights.plan(1.0, demand({0: (1, 0.5)}, {0: 3}, places=8, steps=50), slots)
    assert weights.merged == 0 and weights.beside({0}) == 0
    weights.plan(2.0, demand({1: (3, 1.5)}, {0: 4}, places=8, steps=100), slots)
    assert weights.merged == 0 and not weights.admits(1)  # four of seven: above a half
    weights.plan(3.0, demand({1: (4, 1.5)}, {0: 3}, places=8, steps=150), slots)
    assert weights.merged == BASE and weights.admits(1) and weights.beside({0, 1}) == 2


def test_credits_of_the_displaced_end_a_merge_in_time() -> None:
    weights, slots = Credits(TIMES, limit=10.0), store(4)
    waits = demand({0: (6, 0.0), 1: (1, 0.0)}, {}, places=8)
    weights.merged = 0
    steps = 0
    while weights.merged == 0:
        steps += 10
        waits = demand({0: (6, 0.0), 1: (1, 0.0)}, {}, places=8, steps=steps)
        weights.plan(steps * 0.1, waits, slots)
        assert steps < 1000
    displaced = steps / 8 * (0.027 / 0.015)
    assert 10.0 <= displaced < 10.0 + 10 / 8 * (0.027 / 0.015)
    assert weights.credit[1] == pytest.approx(displaced) and weights.credit[0] == pytest.approx(-displaced)


def test_a_mixture_follows_the_hottest_adapter_and_keeps_it_in_its_slot() -> None:
    weights, slots = Mixture(TIMES, window_s=10.0), store(2)
    for now in range(20):
        weights.plan(float(now), demand({}, {0: 8, 1: 2}), slots)
    assert weights.merged == 0 and weights.admits(1) and weights.beside({0, 1}) == 2
    assert not slots.room_for(2, {1})
    for now in range(20, 60):
        weights.plan(float(now), demand({}, {0: 2, 1: 8}), slots)
    assert (
        weights.merged == 1
        and [adapter for _, _, adapter in weights.switches] == [0, 1]
        or BASE in [adapter for _, _, adapter in weights.switches]
    )
    for now in range(60, 120):
        weights.plan(float(now), demand({}, {0: 4, 1: 4, 2: 4}), slots)
    assert weights.merged == BASE and slots.room_for(2, {1})


def test_prices_are_the_plain_models_where_nothing_is_beside_the_weights() -> None:
    class Price:
        def __init__(self, step_s: float) -> None:
            self.step_s = step_s

        def decode(self, batch: int, context: int, adapters: int) -> tuple[float, float, int]:
            return self.step_s, 0.0, 1

        def mixed(self, *work: float) -> float:
            return self.step_s

        def load(self, adapter: int, from_disk: bool) -> float:
            return 0.5 * self.step_s

    price = MergedPrice(Price(1.0), Price(2.0))
    assert [price.decode(1, 1, adapters)[0] for adapters in (0, 1)] == [1.0, 2.0]
    assert [price.mixed(1, 1.0, 1, 1, 1, 1, adapters) for adapters in (0, 3)] == [1.0, 2.0]
    assert price.load(0, True) == 1.0


def test_a_step_is_never_asked_for_more_adapters_than_it_has_tokens() -> None:
    asked: list[int] = []

    class Price:
        def decode(self, batch: int, context: int, adapters: int) -> tuple[float, float, int]:
            asked.append(adapters)
            return 1.0, 0.0, 1

        def mixed(self, *work: float) -> float:
            asked.append(int(work[-1]))
            return 1.0

        def load(self, adapter: int, from_disk: bool) -> float:
            return 0.0

    price = MergedPrice(Price(), Price())
    price.decode(2, 10, 3)
    price.mixed(1, 1.0, 1, 1, 1, 10, 3)
    assert asked == [2, 2]


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("merge", "strategy = 'merge' is not known; did you mean 'merged'"),
        ("merged:greed", "policy = 'greed' is not known for strategy 'merged'; did you mean 'greedy'"),
        ("mixed:greedy", "'mixed' has no policy"),
    ],
)
def test_names_of_no_strategy_are_refused(name: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        weights_for(name, TIMES)
