"""Laws of adapters that lie in blocks of the KV cache."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphsim.errors import ConfigError
from graphsim.serving.paging import PagedStore, blocks_of
from graphsim.serving.rules import EVICTIONS, AdapterRules

BLOCKS = [4, 4, 8, 16, 2]
LOAD_S = 0.01


def paged(pool: SimpleNamespace, **rules: object) -> PagedStore:
    named = {"max_loras": 4, "max_cpu_loras": 5, "preloaded": True, **rules}
    store = PagedStore(AdapterRules(**named), lambda adapter, from_disk: LOAD_S, BLOCKS)  # type: ignore[arg-type]
    store.attach(pool)
    return store


@settings(max_examples=100, deadline=None)
@given(
    policy=st.sampled_from(EVICTIONS),
    pinned=st.sampled_from([(), (4,)]),
    events=st.lists(st.tuples(st.integers(0, 4), st.integers(1, 12), st.integers(0, 6)), max_size=40),
)
def test_no_block_is_given_twice_and_none_is_lost(
    policy: str, pinned: tuple[int, ...], events: list[tuple[int, int, int]]
) -> None:
    """Requests of an adapter come with some blocks, stay for some events, and go."""
    size = 40
    pool = SimpleNamespace(available=size, idle_adapter_blocks=0)
    store = paged(pool, eviction=policy, pinned=pinned)
    used, ends, taken = Counter[int](), list[tuple[int, int, int]](), 0
    for now, (adapter, blocks, stay) in enumerate(events):
        for end, gone, its in [entry for entry in ends if entry[0] <= now]:
            ends.remove((end, gone, its))
            pool.available += its
            taken -= its
            used[gone] -= 1
            if not used[gone]:
                del used[gone]
                store.touch(gone, float(now))
        if store.room_for(adapter, used) and store.needed(adapter) + blocks <= pool.available:
            resident = adapter in store.slots
            pool.available -= blocks
            store.settle(float(now))
            resident = resident and adapter in store.slots
            if used[adapter]:
                store.join(adapter)
            else:
                assert store.use(adapter, float(now), used) == (0.0 if resident else pytest.approx(LOAD_S))
            used[adapter] += 1
            taken += blocks
            ends.append((now + stay + 1, adapter, blocks))
        held = sum(BLOCKS[a] for a in {*used, *pinned})
        assert pool.available == size - taken - held >= 0
        assert (
            pool.idle_adapter_blocks
            == sum(BLOCKS[a] for a in store.slots if a not in used and a not in pinned)
            <= pool.available
        )
        assert {*used, *pinned} <= set(store.slots)


def test_an_idle_adapter_stays_while_there_is_memory_and_goes_when_requests_need_it() -> None:
    pool = SimpleNamespace(available=30, idle_adapter_blocks=0)
    store = paged(pool)
    store.use(3, 0.0, Counter())
    assert (pool.available, pool.idle_adapter_blocks) == (14, 0) and store.room_for(2, {3}) and store.needed(2) == 8
    store.touch(3, 1.0)
    assert (pool.available, pool.idle_adapter_blocks) == (30, 16)
    assert store.use(3, 2.0, Counter()) == 0.0  # still there
    store.touch(3, 3.0)
    pool.available -= 20  # a request takes them
    store.settle(4.0)
    assert pool.idle_adapter_blocks == 0 and 3 not in store.slots and not store.room_for(3, Counter())


def test_the_least_recently_used_of_the_idle_makes_way_for_another_adapter() -> None:
    pool = SimpleNamespace(available=18, idle_adapter_blocks=0)
    store = paged(pool)
    for now, adapter in enumerate((0, 2, 1, 0)):
        store.use(adapter, float(now), Counter())
        store.touch(adapter, now + 0.5)
    assert list(store.slots) == [2, 1, 0]
    store.use(4, 5.0, Counter())
    assert set(store.slots) == {0, 1, 2, 4}
    store.touch(4, 5.5)
    pool.available -= 1
    store.settle(6.0)
    assert set(store.slots) == {0, 1, 4}


def test_adapters_take_whole_blocks_and_must_fit() -> None:
    assert blocks_of([100.0, 101.0, 50.0], 50.0) == [2, 3, 1]
    with pytest.raises(ConfigError, match="0.0 bytes"):
        blocks_of([1.0], 0.0)
    with pytest.raises(ConfigError, match="adapter 3 takes 16 blocks, and the KV cache has 16"):
        paged(SimpleNamespace(available=16, idle_adapter_blocks=0))
