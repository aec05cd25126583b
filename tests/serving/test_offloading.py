"""Tiers of the KV cache: what leaves the device is kept elsewhere, and comes back where that is cheaper."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import graphsim as gs
from graphsim.errors import ConfigError
from graphsim.serving.batch import Batch
from graphsim.serving.cache import KVCache, Node
from graphsim.serving.loop import run
from graphsim.serving.offloading import Loads, Tier, TieredCache
from graphsim.serving.rules import Rules
from graphsim.serving.run_log import RunLog
from graphsim.traffic.table import Prefixes, request_table
from tests.serving.line_price import LinePrice
from tests.serving.served_cases import PRESETS, Case, cases
from tests.serving.test_cache import enters, leaves, maker

FREE = Tier(name="host", blocks=10**9)
NOTHING = Tier(name="host", blocks=0)
ANY_CASE = st.sampled_from(sorted(PRESETS)).flatmap(cases)
SEVERAL = settings(max_examples=30, deadline=None, derandomize=True)
COLUMNS = ("admitted_s", "first_token_s", "finished_s", "cached_tokens", "loaded_tokens", "preemptions", "status")


def with_tiers(case: Case, *tiers: Tier, reads: str = "stall") -> Case:
    return replace(case, rules=replace(case.rules, tiers=tiers, tier_reads=reads, prefix_cache=True))


def same(one: RunLog, other: RunLog, **tolerance: Any) -> None:
    for name in COLUMNS:
        assert getattr(one, name) == pytest.approx(getattr(other, name), nan_ok=True, **tolerance), name


def nodes_of(cache: KVCache) -> list[Node]:
    found, left = [], [child for root in cache._roots.values() for child in root.children.values()]
    while left:
        found.append(left.pop())
        left += found[-1].children.values()
    return found


def check_places(cache: TieredCache) -> None:
    """What tiers say that they hold is what lies in the tree, within their room, and never ahead of the device's."""
    nodes = nodes_of(cache)
    for index, tier in enumerate(cache.tiers):
        held = sum(node.size for node in nodes if node.place == index + 1)
        assert cache.stored[index] == held <= tier.blocks
    for node in nodes:
        assert node.first < node.last and node.parent is not None and node.place >= node.parent.place
        assert not (node.place and node.users)
        assert all(child.first == node.last for child in node.children.values())


@pytest.mark.slow
@SEVERAL
@given(case=ANY_CASE)
def test_tiers_without_room_change_nothing(case: Case) -> None:
    same(with_tiers(case, NOTHING, replace(NOTHING, name="disk")).run(), with_tiers(case).run())


@pytest.mark.slow
@pytest.mark.parametrize("preset", PRESETS)
@SEVERAL
@given(data=st.data())
def test_an_endless_tier_that_takes_no_time_decides_as_the_reference_does(preset: str, data: st.DataObject) -> None:
    case = with_tiers(data.draw(cases(preset)), FREE)
    log, plain = case.run(), case.reference().run()
    same(log, plain, abs=1e-6)


@pytest.mark.slow
@SEVERAL
@given(
    case=ANY_CASE, sizes=st.tuples(st.integers(0, 20), st.integers(0, 20)), seconds=st.sampled_from([0.0, 1e-4, 1.0])
)
def test_blocks_are_in_one_place_and_tokens_add_up(case: Case, sizes: tuple[int, int], seconds: float) -> None:
    tiers = [Tier(name="host", blocks=sizes[0]), Tier(name="disk", blocks=sizes[1], block_s=seconds)]
    case, caches = with_tiers(case, *tiers), []
    original = Batch.enter

    def watched(batch: Batch, *given: Any) -> None:
        original(batch, *given)
        check_places(batch.cache)  # type: ignore[arg-type]
        caches.append(batch.cache)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Batch, "enter", watched)
        log = case.run()
    assert log.loaded_tokens.sum() == sum(tokens for _, _, _, tokens in log.tier_loads)
    assert all(sizes[tier] for _, _, tier, _ in log.tier_loads)
    if not log.preemptions.any():
        assert (log.loaded_tokens <= log.cached_tokens).all()


def chats(turns: int, chats: int, prompt: int = 64, answer: int = 16) -> Any:
    """Chats in turn, so that between two turns of one all others have one; a turn's prompt is all that was said."""
    rows = [(chat, turn) for turn in range(turns) for chat in range(chats)]
    inputs = np.array([prompt + turn * (prompt + answer) for _, turn in rows])
    prefixes = Prefixes(
        start=np.arange(len(rows) + 1), segment=np.array([chat for chat, _ in rows]), end=inputs
    )  # fmt: skip
    return request_table(np.arange(len(rows)) * 10.0, inputs, np.full(len(rows), answer), prefixes=prefixes)


def served(blocks: int, *tiers: Tier, reads: str = "stall") -> RunLog:
    rules = Rules(kv_blocks=blocks, block_tokens=4, tiers=tiers, tier_reads=reads)
    return run(chats(6, 5), rules, LinePrice())


def test_an_endless_tier_that_takes_no_time_computes_nothing_again() -> None:
    """As a device that all of it fits on, while a small device alone loses nearly all chats between their turns."""
    large, small, tiered = served(10**6), served(130), served(130, FREE)
    assert small.cached_tokens.sum() < 0.05 * large.cached_tokens.sum()
    same(replace(large, loaded_tokens=tiered.loaded_tokens), tiered)
    assert tiered.loaded_tokens.sum() > 0.9 * tiered.cached_tokens.sum()


def test_what_takes_longer_than_computing_is_computed() -> None:
    log = served(130, replace(FREE, block_s=1e3))
    assert not log.loaded_tokens.any() and not log.tier_loads
    same(log, served(130))


@pytest.mark.parametrize("reads", ["stall", "overlapped"])
def test_more_room_and_faster_links_never_lose(reads: str) -> None:
    room = [served(130, replace(FREE, blocks=n, block_s=1e-5), reads=reads) for n in (0, 50, 200, 10**6)]
    assert np.all(np.diff([log.cached_tokens.sum() for log in room]) >= 0)
    assert room[-1].cached_tokens.sum() > room[1].cached_tokens.sum()
    speed = [served(130, replace(FREE, block_s=s), reads=reads) for s in (1e-4, 1e-5, 0.0)]
    means = [(log.first_token_s - log.sent_s).mean() for log in speed]
    assert np.all(np.diff(means) <= 0)


def test_a_step_waits_for_its_loads_or_hides_them() -> None:
    """The step of the last turn takes its load on top, or as long as the longer of both."""
    slow = replace(FREE, setup_s=0.001, block_s=1e-4)
    free, stall, hidden = served(130, FREE), served(130, slow), served(130, slow, reads="overlapped")
    last = -1
    load_s = 0.001 + 1e-4 * stall.loaded_tokens[last] / 4
    assert stall.loaded_tokens[last] == free.loaded_tokens[last] > 0
    step_s = (free.first_token_s - free.admitted_s)[last]
    assert (stall.first_token_s - stall.admitted_s)[last] == pytest.approx(step_s + load_s)
    assert (hidden.first_token_s - hidden.admitted_s)[last] == pytest.approx(max(step_s, load_s))


def test_what_the_host_has_no_room_for_goes_on_to_disk() -> None:
    """Two prompts of four blocks leave a device of eight one after another; the host has room for five of them."""
    cache = TieredCache(8, 4, [Tier(name="host", blocks=5), Tier(name="disk", blocks=100)], keeps=True)
    make = maker([17, 17, 32, 17], [[(1, 16)], [(2, 16)], [], [(1, 16)]])
    for row in (0, 1, 2):
        request = make.one(row, 0.0)
        if row < 2:
            request.inputs = 16
        enters(cache, request)
        leaves(cache, request)
        check_places(cache)
    cache.hit(make.one(3, 0.0), 4)
    assert cache.stored == [5, 3]
    assert cache.beyond(make.one(3, 0.0), 0, 4) == [(0, 1), (1, 3)]


def test_only_the_tiers_that_pay_are_read() -> None:
    cache = TieredCache(8, 4, [Tier(name="host", blocks=5), Tier(name="disk", blocks=100, block_s=1.0)], keeps=True)
    make = maker([16, 16, 32, 17], [[(1, 16)], [(2, 16)], [], [(1, 16)]])
    for row in (0, 1, 2):
        request = make.one(row, 0.0)
        enters(cache, request)
        leaves(cache, request)
    cache.hit(make.one(3, 0.0), 4)
    loads = Loads(cache, lambda tokens, past, adapter: 1e-3 * tokens)
    assert loads.worth(make.one(3, 0.0), 17, 0) == (1, [(0, 1, 0.0)])


SHAPE: dict[str, Any] = {"input_tokens": 100, "output_tokens": 30, "requests": 60, "rate": 2.0}
CHATS = gs.Traffic.poisson(**SHAPE, sessions=gs.Sessions(turns=6, think_s=10.0))


def tiers_under(engine: str, **limits: Any) -> tuple[Tier, ...]:
    return gs.serve("gpt-2", "l4", gs.Traffic.closed(concurrency=1, requests=1, input_tokens=8, output_tokens=1),
                    engine=engine, limits=gs.EngineLimits(kv_tokens=16_000, **limits)).rules.tiers  # fmt: skip


@pytest.mark.slow
def test_engines_own_flags_say_the_same() -> None:
    """GPT-2 keeps 36,864 bytes a token: 12 layers of keys and values, 768 numbers of two bytes."""
    token = 36_864
    back = tiers_under("vllm", kv_host=token * 32_000, kv_writes="back")
    assert back[0].blocks == 2000 and back[0].block_s == pytest.approx(16 * token / 32e9, rel=0.05)
    assert tiers_under("vllm", kv_host=token * 32_000)[0].blocks == 1000  # has copies of the device's 1,000
    assert tiers_under("vllm", kv_offloading_size=token * 32_000 / 2**30)[0].blocks == 1000
    assert tiers_under("trtllm", host_cache_size=token * 32_000)[0].blocks * 32 == 32_000
    for limits in ({"enable_hierarchical_cache": True}, {"hicache_ratio": 2}, {"hicache_size": token * 32_000 / 1e9}):
        assert tiers_under("sglang", **limits)[0].blocks == 16_000
    both = tiers_under("vllm", kv_host=token * 32_000, kv_disk=token * 64_000, kv_disk_rate="1 GB/s")
    assert [tier.blocks for tier in both] == [1000, 2000] and both[1].block_s == pytest.approx(16 * token / 1e9)
    assert tiers_under("vllm", kv_host=0) == tiers_under("vllm") == ()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("limits", "says"),
    [
        ({"kv_host": "many"}, "limits.kv_host: 'many' is not"),
        ({"kv_host": -1}, "limits.kv_host = -1 is not allowed; expected a number from 0"),
        ({"kv_host": "1 GB", "enable_prefix_caching": False}, "prefix caching is off"),
        ({"kv_host_rate": 0}, "limits.kv_host_rate = 0 is not allowed"),
        ({"kv_writes": "sometimes"}, "limits.kv_writes = 'sometimes' is not allowed"),
    ],
)
def test_what_no_tier_can_be_is_refused(limits: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        tiers_under("vllm", **limits)


@pytest.mark.slow
def test_a_served_run_reports_what_came_from_tiers() -> None:
    limits = gs.EngineLimits(kv_tokens=2000, kv_host="4 GB")
    without = gs.serve("gpt-2", "l4", CHATS, limits=gs.EngineLimits(kv_tokens=2000))
    service = gs.serve("gpt-2", "l4", CHATS, limits=limits)
    loaded = service.requests["loaded_tokens"].sum()
    assert loaded == sum(row[3] for row in service.log.tier_loads) > 0
    assert service.log.cached_tokens.sum() > without.log.cached_tokens.sum()
    assert service.more_rows[0][0] == "KV cache from host" and f"{loaded:,} tokens" in service.more_rows[0][1]
    for replicas in (1, 2):
        fleet = gs.serve("gpt-2", "l4", CHATS, limits=limits, replicas=replicas)
        assert sum(row[3] for row in fleet.log.tier_loads) == fleet.requests["loaded_tokens"].sum()


def test_a_tier_that_holds_no_more_than_the_device_is_pointed_out() -> None:
    limits = gs.EngineLimits(kv_tokens=16_000, kv_host="100 MB")
    service = gs.serve("gpt-2", "l4", gs.Traffic.closed(concurrency=1, requests=2, input_tokens=9, output_tokens=2),
                       limits=limits)  # fmt: skip
    assert any("nothing is gained" in note for note in service.notes)
