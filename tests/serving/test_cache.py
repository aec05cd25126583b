"""Blocks, and prefixes that are used again."""

from __future__ import annotations

import numpy as np
import pytest

from graphsim.serving.cache import KVCache
from graphsim.serving.loop import run
from graphsim.serving.requests import Request, RequestMaker
from graphsim.serving.rules import AdapterRules, Rules
from graphsim.traffic.table import Prefixes, request_table
from tests.serving.test_worked_traces import Ticks


def maker(inputs: list[int], chains: list[list[tuple[int, int]]], adapter: list[int] | None = None) -> RequestMaker:
    """Requests whose prompts begin with segments (name, end)."""
    flat = [part for chain in chains for part in chain]
    prefixes = Prefixes(
        start=np.cumsum([0, *(len(chain) for chain in chains)]),
        segment=np.array([name for name, _ in flat], dtype=int),
        end=np.array([end for _, end in flat], dtype=int),
    )  # fmt: skip
    count = len(inputs)
    table = request_table([0.0] * count, inputs, [8] * count, adapter=adapter or [-1] * count, prefixes=prefixes)
    return RequestMaker(table, 4)


def enters(cache: KVCache, request: Request) -> int:
    """A request takes blocks for its whole prompt; gives the tokens that it found."""
    found, _ = cache.hit(request, (request.inputs - 1) // 4)
    cache.take(request, found)
    cache.give(request, -(-request.inputs // 4) - found)
    cache.share(request, request.inputs // 4)
    request.computed = request.inputs
    return found * 4


def leaves(cache: KVCache, request: Request) -> None:
    cache.drop(request, request.computed // 4, returns=False)


@pytest.mark.parametrize(
    ("first", "second", "shared"),
    [
        ([(1, 16)], [(1, 16)], 16),  # the same system prompt
        ([(1, 15)], [(1, 15)], 12),  # of which only full blocks count
        ([(1, 16)], [(2, 16)], 0),
        ([(1, 16), (2, 24)], [(1, 16), (3, 24)], 16),
        ([(1, 16), (2, 24)], [(1, 12)], 12),  # the same text, but not as far
        ([(1, 6), (2, 16)], [(1, 6), (2, 16)], 16),  # a block across two segments
        ([(1, 6), (2, 16)], [(1, 6), (3, 16)], 4),
        ([(1, 6), (2, 16)], [(1, 7), (2, 16)], 4),  # text that lies elsewhere is another text
        ([(1, 5), (2, 7), (3, 16)], [(1, 5), (2, 7), (3, 16)], 16),  # segments within a block
        ([(1, 5), (2, 7), (3, 16)], [(1, 5), (4, 7), (3, 16)], 4),
    ],
)
def test_prompts_share_the_blocks_of_the_text_that_they_begin_with(
    first: list[tuple[int, int]], second: list[tuple[int, int]], shared: int
) -> None:
    cache = KVCache(100, 4, keeps=True)
    make = maker([40, 40], [first, second])
    one, other = make.one(0, 0.0), make.one(1, 0.0)
    assert enters(cache, one) == 0
    assert enters(cache, other) == shared
    assert cache.available == 100 - 20 + shared // 4
    leaves(cache, one)
    leaves(cache, other)
    assert cache.available == 100


def test_adapters_never_share() -> None:
    cache = KVCache(100, 4, keeps=True)
    make = maker([40, 40, 40], [[(1, 16)]] * 3, adapter=[-1, 0, 1])
    assert [enters(cache, make.one(row, 0.0)) for row in range(3)] == [0, 0, 0]


def test_the_last_token_of_a_prompt_is_computed_at_any_rate() -> None:
    cache = KVCache(100, 4, keeps=True)
    make = maker([16, 16, 17], [[(1, 16)]] * 3)
    assert [enters(cache, make.one(row, 0.0)) for row in range(3)] == [0, 12, 16]


def test_the_end_of_what_was_used_least_recently_goes_first() -> None:
    """Ten blocks: two prompts of four, the older of which gives way from its end on when three more are needed."""
    cache = KVCache(10, 4, keeps=True)
    make = maker([16, 16, 20, 17, 17], [[(1, 16)], [(2, 16)], [], [(2, 16)], [(1, 16)]])
    for row in (0, 1):
        request = make.one(row, 0.0)
        enters(cache, request)
        leaves(cache, request)
    assert cache.idle == 8
    enters(cache, make.one(2, 0.0))  # five blocks, two of which were blank
    assert cache.idle == 5
    assert cache.hit(make.one(3, 0.0), 4) == (4, 4)
    assert cache.hit(make.one(4, 0.0), 4) == (1, 1)


def test_a_chat_goes_on_with_what_was_said() -> None:
    """Turn 1: 20 tokens and 8 of the answer, the last of which was not computed; 24 of 27 are full blocks of turn 2."""
    prefixes = Prefixes(start=np.array([0, 1, 2]), segment=np.array([7, 7]), end=np.array([20, 36]))
    table = request_table([0.0, np.nan], [20, 36], [8, 1], after=[-1, 0], prefixes=prefixes)
    assert run(table, Rules(kv_blocks=50, block_tokens=4), Ticks()).cached_tokens.tolist() == [0, 24]
    off = run(table, Rules(kv_blocks=50, block_tokens=4, prefix_cache=False), Ticks())
    assert off.cached_tokens.tolist() == [0, 0]


def test_two_adapters_of_one_chat_compute_it_twice() -> None:
    prefixes = Prefixes(start=np.array([0, 1, 2]), segment=np.array([7, 7]), end=np.array([20, 36]))
    table = request_table([0.0, np.nan], [20, 36], [8, 1], after=[-1, 0], prefixes=prefixes, adapter=[0, 1])
    rules = Rules(kv_blocks=50, block_tokens=4, adapters=AdapterRules(max_loras=2))
    assert run(table, rules, Ticks()).cached_tokens.tolist() == [0, 0]


def test_a_long_prompt_costs_by_its_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    original = KVCache._way

    def counted(cache: KVCache, holder: Request, most: int) -> list[tuple[object, int]]:
        found = original(cache, holder, most)
        made.append(len(found))
        return found  # type: ignore[return-value]

    monkeypatch.setattr(KVCache, "_way", counted)
    cache = KVCache(10**6, 4, keeps=True)
    make = maker([10**5, 10**5], [[(1, 40_000), (2, 99_999)]] * 2)
    enters(cache, make.one(0, 0.0))
    assert enters(cache, make.one(1, 0.0)) == 99_996
    assert max(made) == 2
