"""Several engines behind one router: one of them is `run`, and nothing gets lost on the way."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import inf
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from graphsim.errors import ConfigError
from graphsim.serving.driven_engine import DrivenEngine
from graphsim.serving.fleet.fleet_loop import NOWHERE, FleetLoop
from graphsim.serving.fleet.fleet_tables import some_of
from graphsim.serving.fleet.registry import ROUTERS, router_of
from graphsim.serving.fleet.router import FleetFacts, LeastLoaded
from graphsim.serving.fleet.views import ScrapedView, View
from graphsim.serving.front import Front
from graphsim.serving.requests import Request, RequestMaker
from graphsim.serving.rules import Rules
from graphsim.serving.run_log import FINISHED, STATUSES, UNFINISHED, RunLog
from graphsim.traffic.client import Client
from graphsim.traffic.table import NOBODY, request_table
from tests.serving.served_cases import PRESETS, PRICE, Case, cases

COLUMNS = (
    "sent_s", "received_s", "admitted_s", "first_token_s", "finished_s", "status", "preemptions", "cached_tokens",
    "load_stall_s",
)  # fmt: skip
ANY_PRESET = st.sampled_from(sorted(PRESETS)).flatmap(cases)
ANY_ROUTER = st.sampled_from(sorted(ROUTERS))


def fleet(case: Case, replicas: int, router: Any = "least-loaded", view_age_s: float = 0.0) -> FleetLoop:
    rules = case.rules

    def make(log: RunLog, client: Client, tell: Callable[[int, float, bool], None]) -> DrivenEngine:
        return DrivenEngine(
            rules, PRICE, log=log, client=client, reply_s=case.front.reply_s, store=case.store(), tell=tell
        )  # fmt: skip

    adapters = int(case.table.adapter.max(initial=-1)) + 1
    facts = FleetFacts(
        replicas=replicas, adapters=adapters, slots=rules.adapters.max_loras, max_num_seqs=rules.max_num_seqs,
        kv_blocks=rules.kv_blocks, block_tokens=rules.block_tokens,
    )  # fmt: skip
    loop = FleetLoop(
        case.table, make, replicas, router_of(router), client=case.client, front=case.front,
        concurrency=case.concurrency, block_tokens=rules.block_tokens, facts=facts, view_age_s=view_age_s,
    )  # fmt: skip
    loop.run()
    return loop


@pytest.mark.slow
@settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.filter_too_much])
@given(case=ANY_PRESET, router=ANY_ROUTER, view_age_s=st.sampled_from([0.0, 0.1]))
def test_one_replica_is_the_server_itself(case: Case, router: str, view_age_s: float) -> None:
    """Whatever the router. To the last bit where clients wait for nobody; else times are rounded otherwise."""
    expected, loop = case.run(), fleet(case, 1, router, view_age_s)
    waits = case.client.connections < inf or case.concurrency is not None or (case.table.after != NOBODY).any()
    for name in COLUMNS:
        wanted = pytest.approx(getattr(expected, name), rel=0.0, abs=1e-9 if waits else 0.0, nan_ok=True)
        assert getattr(loop.log, name) == wanted, name
    if not waits:
        own = loop.members[0].driven.log
        assert np.array_equal(np.asarray(own.runs), np.asarray(expected.runs))
        assert np.array_equal(np.asarray(loop.log.gaps), np.asarray(expected.gaps))
        assert loop.log.loads == expected.loads


@pytest.mark.slow
@settings(max_examples=100, deadline=None, derandomize=True)
@given(case=ANY_PRESET, router=ANY_ROUTER, replicas=st.integers(2, 5), view_age_s=st.sampled_from([0.0, 0.1]))
def test_routers_lose_and_double_nobody(case: Case, router: str, replicas: int, view_age_s: float) -> None:
    loop = fleet(case, replicas, router, view_age_s)
    log, done = loop.log, loop.log.status == STATUSES.index(FINISHED)
    assert (loop.replica[done] >= 0).all() and (loop.replica < replicas).all()
    assert np.isfinite(log.finished_s[done]).all() and np.isnan(log.finished_s[~done]).all()
    assert (loop.replica[np.isnan(log.sent_s)] == NOWHERE).all()
    if case.client.cutoff_s == inf:
        assert not (log.status == STATUSES.index(UNFINISHED)).any()
        assert [member.view.open for member in loop.members] == [0] * replicas
    assert sum(member.view.sent for member in loop.members) >= np.isfinite(log.sent_s).sum()
    tokens = sum(row[3] * row[2] for member in loop.members for row in member.driven.log.runs)
    if not log.preemptions.any() and case.client.timeout_s == inf and case.client.cutoff_s == inf:
        assert tokens == (case.table.output_tokens[done] - 1).sum()


@pytest.mark.slow
@settings(max_examples=80, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.filter_too_much])
@given(case=ANY_PRESET, router=ANY_ROUTER, replicas=st.integers(2, 4))
def test_each_replica_does_what_it_does_alone(case: Case, router: str, replicas: int) -> None:
    """Given the requests that came to it: nobody waits for anybody else's steps."""
    waits = case.client.connections < inf or case.concurrency is not None or (case.table.after != NOBODY).any()
    assume(not waits and (case.table.prefixes is None or not case.rules.prefix_cache))
    loop = fleet(case, replicas, router)
    for number in range(replicas):
        rows = np.flatnonzero(loop.replica == number)
        alone = replace(case, table=some_of(case.table, loop.log, rows)).run()
        for name in COLUMNS:
            assert np.array_equal(getattr(loop.log, name)[rows], getattr(alone, name), equal_nan=True), name


class Crooked:
    """Sends everything to a place that is not there."""

    def __init__(self, place: Any) -> None:
        self.place = place

    def route(self, request: Any, views: Sequence[Any]) -> Any:
        return self.place


def case_of() -> Case:
    table = request_table(np.arange(20) * 0.01, np.full(20, 40), np.full(20, 30))
    return Case(table, Rules(kv_blocks=200), Client(), None, Front())


@pytest.mark.parametrize("place", [7, -1, None, "first", [0]])
def test_a_router_that_names_no_replica_is_told(place: Any) -> None:
    with pytest.raises(ConfigError, match="sent a request to replica .*; expected one of 0, 1"):
        fleet(case_of(), 2, Crooked(place))


def test_what_is_no_router_is_told() -> None:
    with pytest.raises(ConfigError, match="router = 'round-robbin' is not known; did you mean 'round-robin'"):
        router_of("round-robbin")
    with pytest.raises(
        ConfigError, match=r"is not a router; expected a name .* or an object with route\(request, views\)"
    ):
        router_of(3)


def test_a_router_of_ones_own_is_not_used_up() -> None:
    """It begins alike in every run."""
    router = router_of("round-robin")
    first, second = (fleet(case_of(), 3, router).replica.tolist() for _ in range(2))
    assert first == second and first[:4] == [0, 1, 2, 0]


def test_old_views_send_everybody_to_the_same_place() -> None:
    """Whoever was least loaded at the last look."""
    views = [ScrapedView(number) for number in range(4)]
    for view, running in zip(views, (3, 2, 1, 2), strict=True):
        view.running = running
    request = RequestMaker(case_of().table, 16).one(0, 0.0)
    for name, chosen in (("least-loaded", {2}), ("least-open", {0, 1, 2, 3})):
        router, found = router_of(name), list[int]()
        for view in views:
            view.open = view.sent = 0
        for _ in range(8):
            found.append(router.route(request, views))
            views[found[-1]].sent += 1
            views[found[-1]].open += 1
        assert set(found) == chosen, name


def test_scraped_views_are_those_of_the_last_look() -> None:
    """Twenty requests within 0.2 s: who looks every 10 s sees four empty replicas all the time."""
    seen: list[list[int]] = []

    class Looks(LeastLoaded):
        def route(self, request: Request, views: Sequence[View]) -> int:
            seen.append([view.running + view.waiting for view in views])
            return super().route(request, views)

    fleet(case_of(), 4, Looks(), 10.0)
    assert not np.any(seen)
    seen.clear()
    fleet(case_of(), 4, Looks(), 0.1)
    assert np.any(seen[:11] != np.zeros(4)) and not np.any(seen[:10])
    assert seen[11:20].count(seen[11]) == 9
