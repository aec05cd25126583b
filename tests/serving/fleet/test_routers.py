"""Each router alone, on views made by hand."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest

from graphsim.errors import ConfigError
from graphsim.serving.fleet.adapter_routers import AdapterAffinity, Rendezvous, StaticMap
from graphsim.serving.fleet.demand import Demand, copies_of, placed
from graphsim.serving.fleet.placement import Placed
from graphsim.serving.fleet.prefixes import SentPrefixes
from graphsim.serving.fleet.registry import ROUTERS, router_of
from graphsim.serving.fleet.router import FleetFacts, LeastKV, Router, ranked
from graphsim.serving.fleet.scores import SCORES, Dynamo, PrefixAware, Weighted
from graphsim.serving.fleet.views import Clock, ScrapedView
from graphsim.serving.requests import Request, RequestMaker
from graphsim.traffic.table import BASE, Prefixes, request_table

FACTS = FleetFacts(replicas=4, adapters=12, slots=3, max_num_seqs=8, kv_blocks=100, block_tokens=16)


def views(count: int = 4, **columns: Any) -> list[ScrapedView]:
    found = [ScrapedView(number) for number in range(count)]
    for name, values in columns.items():
        for view, value in zip(found, values, strict=True):
            setattr(view, name, value)
    return found


def asks(adapter: int = BASE, inputs: int = 160) -> Request:
    return RequestMaker(request_table([0.0], [inputs], [10], adapter=[adapter]), 16).one(0, 0.0)


def prepared(router: Any) -> Any:
    router.prepare(FACTS)
    return router


def texts(*chains: list[tuple[int, int]], inputs: int = 160) -> list[Request]:
    """Requests whose prompts are chains of (segment, tokens up to its end)."""
    start = np.cumsum([0, *map(len, chains)])
    flat = [pair for chain in chains for pair in chain]
    prefixes = Prefixes(
        start=start, segment=np.array([s for s, _ in flat], dtype=int), end=np.array([e for _, e in flat], dtype=int)
    )
    count = len(chains)
    table = request_table(np.zeros(count), np.full(count, inputs), np.full(count, 10), prefixes=prefixes)
    maker = RequestMaker(table, 16)
    return [maker.one(row, 0.0) for row in range(count)]


@pytest.mark.parametrize("name", ROUTERS)
def test_every_router_names_one_of_the_replicas_that_take_requests(name: str) -> None:
    router: Router = router_of(name)
    prepare = getattr(router, "prepare", None)
    if prepare is not None:
        prepare(FACTS)
    some = [view for view in views() if view.number in (1, 3)]
    for adapter in (BASE, *range(12)):
        assert router.route(asks(adapter), some) in (1, 3), adapter


def test_least_kv_goes_by_the_share_of_the_cache() -> None:
    assert LeastKV().route(asks(), views(kv_use=(0.5, 0.2, 0.9, 0.2), running=(0, 3, 0, 2))) == 3


def test_affinity_stays_where_the_adapter_is_until_that_replica_is_full() -> None:
    router = prepared(AdapterAffinity())
    there = views(resident=((7,), (), (), ()), running=(5, 1, 1, 1))
    assert router.route(asks(7), there) == 0 and router.route(asks(8), there) == 1
    there[0].running = FACTS.max_num_seqs
    assert router.route(asks(7), there) == 1
    assert (
        prepared(AdapterAffinity(most=3)).route(asks(7), views(resident=((7,), (), (), ()), running=(3, 1, 1, 1))) == 1
    )


def test_rendezvous_moves_only_what_belongs_on_the_replica_that_is_new() -> None:
    """Of 600 adapters a fifth replica takes about a fifth, each from where it was."""
    router = Rendezvous()
    before = [router.route(asks(adapter), views(4)) for adapter in range(600)]
    after = [router.route(asks(adapter), views(5)) for adapter in range(600)]
    moved = [new for old, new in zip(before, after, strict=True) if old != new]
    assert set(moved) == {4} and 80 < len(moved) < 160
    assert max(Counter(before).values()) < 200
    twice = Rendezvous(copies=2)
    chosen = {twice.route(asks(3), views(4, running=load)) for load in ((0, 1, 2, 3), (3, 2, 1, 0), (2, 0, 3, 1))}
    assert chosen == set(ranked("adapter 3", range(4))[:2]) or chosen < set(ranked("adapter 3", range(4))[:2])


def test_a_static_map_keeps_to_homes_and_copies() -> None:
    homes = prepared(StaticMap({0: 2, 1: [1, 3]}))
    assert homes.route(asks(0), views()) == 2
    assert homes.route(asks(1), views(running=(0, 5, 0, 1))) == 3
    assert homes.route(asks(6), views()) == 2  # 6 modulo 4
    copies = prepared(StaticMap(copies={5: 1, 6: 3}))
    assert {copies.route(asks(6), views(running=np.eye(4, dtype=int)[i] * -1)) for i in range(4)} == {0, 1, 2}
    assert copies.route(asks(5), views()) == 3


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: prepared(StaticMap({0: 9})), "adapter 0 is mapped to replica 9; there are 4"),
        (lambda: prepared(StaticMap({40: 1})), "adapter 40 does not exist; there are 12"),
        (lambda: StaticMap({0: "first"}), "homes of adapter 0 = 'first' is not allowed"),  # type: ignore[dict-item]
        (lambda: StaticMap(copies={0: 0}), "copies of adapter 0 = 0 is not allowed"),
        (lambda: StaticMap({0: 1}, {0: 1}), "takes homes or copies, not both"),
        (lambda: Rendezvous(copies=0), "copies = 0 is not allowed"),
        (lambda: Weighted({"luck": 1.0}), "score 'luck' is not known"),
        (lambda: Weighted({"queue": -1.0}), "weight of queue = -1.0 is not allowed"),
        (lambda: Placed(every_s=0), "every_s = 0 is not allowed"),
        (lambda: prepared(Placed(ranks=[8])), "1 ranks are given for 12 adapters"),
    ],
)
def test_routers_that_cannot_be_say_so(make: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        make()


def test_scores_of_adapters_are_those_of_llm_d() -> None:
    router = prepared(Weighted())
    there = views(
        active=((7,), (1, 2), (1, 2, 3), (1, 2, 3)), queued=((), (), (7,), (4,)),
        resident=((7,), (1, 2), (7,), (1, 2, 3)), in_host=((7,), (1, 2), (7,), (1, 2, 3, 7)),
    )  # fmt: skip
    assert SCORES["lora-affinity"](router, asks(7), there) == [1.0, 0.8, 0.6, 0.0]
    assert SCORES["lora-load-state"](router, asks(7), there) == [1.0, 0.6, 1.0, 0.7]
    assert SCORES["lora-load-state"](router, asks(9), there) == [0.6, 0.6, 0.6, 0.0]
    assert SCORES["lora-load-state"](router, asks(BASE), there) == pytest.approx([2 / 3, 1 / 3, 0.0, 0.0])
    assert SCORES["queue"](router, asks(), views(waiting=(4, 0, 2, 4))) == [0.0, 1.0, 0.5, 0.0]
    assert SCORES["queue"](router, asks(), views(waiting=(3, 3, 3, 3))) == [1.0] * 4
    assert SCORES["kv"](router, asks(), views(kv_use=(0.25, 0.0, 1.0, 0.5))) == [0.75, 1.0, 0.0, 0.5]


def test_a_prompt_goes_where_it_was_sent_before() -> None:
    first, again, other = texts([(1, 96), (2, 144)], [(1, 96), (2, 144)], [(1, 96), (3, 144)])
    known = SentPrefixes(100)
    known.add(first, 2)
    assert [known.matched(request, 2) for request in (first, again, other)] == [9, 9, 6]
    assert known.matched(again, 1) == 0 and known.blocks(2) == 9
    for router in (PrefixAware(), Weighted({"prefix": 1.0}), Dynamo()):
        prepared(router)
        home = router.route(first, views())
        elsewhere = views(sent=[9 * (number == home) for number in range(4)])
        assert router.route(again, elsewhere) == home, router
    assert known.matched(asks(), 2) == 0


def test_prefixes_of_a_full_replica_are_forgotten_from_the_oldest_on() -> None:
    old, new = texts([(1, 96)], [(2, 96)])
    known = SentPrefixes(10)
    known.add(old, 0)
    known.add(new, 0)
    assert known.matched(old, 0) == 0 and known.matched(new, 0) == 6 and known.blocks(0) == 6


def test_prefixes_give_way_where_loads_are_uneven() -> None:
    router = prepared(PrefixAware())
    first, again = texts([(1, 144)], [(1, 144)])
    home = router.route(first, views())
    busy = views(running=[50 * (number == home) for number in range(4)])
    assert router.route(again, busy) != home


def test_dynamo_weighs_blocks_to_compute_against_blocks_in_use() -> None:
    there = views(kv_blocks=(20, 5, 5, 30), queued_tokens=(0, 320, 0, 0))
    assert prepared(Dynamo()).route(asks(), there) == 2
    assert prepared(Dynamo(overlap_weight=0.0)).route(asks(), views(kv_blocks=(20, 6, 5, 30))) == 2


def test_copies_follow_demand_and_fill_the_slots() -> None:
    copies = copies_of({0: 6.0, 1: 3.0, 2: 1.0}, replicas=5, slots=2)
    assert sum(copies.values()) <= 10 and copies[0] == 5 and copies[0] >= copies[1] >= copies[2] >= 1
    assert copies_of(dict.fromkeys(range(30), 1.0), replicas=4, slots=2) == dict.fromkeys(range(30), 1)
    assert copies_of({0: 0.0}, replicas=4, slots=2) == {0: 1}


def test_adapters_are_placed_within_slots_and_evenly() -> None:
    demand = {adapter: 1.0 / (adapter + 1) for adapter in range(8)}
    homes = placed(copies_of(demand, 4, 3), range(4), 3, demand)
    count = Counter(number for home in homes.values() for number in home)
    assert max(count.values()) <= 3 and set(homes) == set(demand)
    load = Counter[int]()
    for adapter, home in homes.items():
        for number in home:
            load[number] += demand[adapter] / len(home)
    assert max(load.values()) < 1.5 * sum(demand.values()) / 4


def test_demand_fades_and_weighs_ranks() -> None:
    demand = Demand([8.0, 64.0], memory_s=10.0)
    demand.add(0, 0.0)
    demand.add(1, 0.0)
    assert demand.of_each(0.0) == {0: 8.0, 1: 64.0}
    assert demand.of_each(10.0)[1] == pytest.approx(64.0 / np.e)


def test_placement_follows_demand_that_moves() -> None:
    """Who is asked for most has most replicas, some time after that changes."""
    clock = Clock()
    router = Placed(every_s=1.0, memory_s=5.0, patience=1)
    router.prepare(FleetFacts(replicas=4, adapters=8, slots=2, clock=clock))
    homes: dict[int, list[set[int]]] = {0: [], 7: []}
    load = views()
    for hot in (0, 7):
        for step in range(400):
            clock.now += 0.1
            adapter = hot if step % 8 else step // 8 % 8
            number = router.route(asks(adapter), load)
            load[number].sent += 1
            if step > 200 and adapter in homes:
                homes[adapter].append({number})
        spread = {adapter: len(set().union(*found)) for adapter, found in homes.items() if found}
        assert spread[hot] > 1
        homes = {0: [], 7: []}
    assert router.moves > 0
