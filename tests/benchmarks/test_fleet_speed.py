"""What replicas cost: ten of them under ten times the traffic as much as ten servers, in memory that requests decide.

`pytest tests/benchmarks/test_fleet_speed.py --benchmark-enable -m "slow or not slow"` prints times. No absolute time is
asserted.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from graphsim.serving.adapter_store import AdapterStore
from graphsim.serving.driven_engine import DrivenEngine
from graphsim.serving.fleet.fleet_loop import FleetLoop
from graphsim.serving.fleet.registry import router_of
from graphsim.serving.fleet.router import FleetFacts
from graphsim.serving.front import Front
from graphsim.serving.run_log import FINISHED, STATUSES, RunLog
from graphsim.traffic.client import Client
from graphsim.traffic.table import RequestTable
from tests.benchmarks import measure
from tests.benchmarks.test_serving_speed import PRICE, SERVER, chat

pytest.importorskip("pytest_benchmark")

RATE, ADAPTERS = 7.5, 20


def fleet(table: RequestTable, replicas: int, router: str = "least-loaded", view_age_s: float = 0.0) -> FleetLoop:
    def make(log: RunLog, client: Client, tell: Callable[[int, float, bool], None]) -> DrivenEngine:
        store = AdapterStore(SERVER.adapters, PRICE.load)
        return DrivenEngine(SERVER, PRICE, log=log, client=client, store=store, tell=tell)

    facts = FleetFacts(
        replicas=replicas, adapters=ADAPTERS, slots=SERVER.adapters.max_loras, max_num_seqs=SERVER.max_num_seqs,
        kv_blocks=SERVER.kv_blocks, block_tokens=SERVER.block_tokens,
    )  # fmt: skip
    loop = FleetLoop(
        table, make, replicas, router_of(router), client=Client(), front=Front(), concurrency=None,
        block_tokens=SERVER.block_tokens, facts=facts, view_age_s=view_age_s,
    )  # fmt: skip
    loop.run()
    assert (loop.log.status == STATUSES.index(FINISHED)).all()
    return loop


def shared(requests: int, replicas: int) -> RequestTable:
    """So many for each replica, at the rate of one server."""
    return chat(requests * replicas, RATE * replicas, adapters=ADAPTERS)


@pytest.mark.slow
@pytest.mark.parametrize("router", ["round-robin", "least-loaded"])
def test_ten_replicas_cost_ten_times_one(router: str) -> None:
    """In calls, which nothing disturbs, and in processor time, which the machine may."""
    one, ten = shared(300, 1), shared(300, 10)
    calls = [measure.calls(lambda t=t, n=n: fleet(t, n, router)) for t, n in ((one, 1), (ten, 10))]
    assert 8.0 < calls[1] / calls[0] < 12.0
    seconds = measure.cpu_seconds(lambda: fleet(one, 1, router), lambda: fleet(ten, 10, router), turns=3)
    assert seconds[1] / seconds[0] < 16.0


@pytest.mark.slow
def test_a_step_costs_the_same_however_many_replicas_there_are() -> None:
    """Engines are driven by their own events: calls per event, of four replicas and of 32."""

    def per_event(replicas: int) -> float:
        loops: list[FleetLoop] = []
        made = measure.calls(lambda: loops.append(fleet(shared(60, replicas), replicas, "round-robin")))
        return made / sum(len(member.driven.log.runs) for member in loops[0].members)

    assert per_event(32) < 1.25 * per_event(4)


MEMORY = """
import sys
from pathlib import Path
from tests.benchmarks.test_fleet_speed import fleet, shared
replicas, requests = int(sys.argv[1]), int(sys.argv[2])
fleet(shared(requests, replicas), replicas)
lines = Path("/proc/self/status").read_text().splitlines()
print([int(line.split()[1]) for line in lines if line.startswith("VmHWM")][0] / 1024)
"""


@pytest.mark.slow
def test_memory_is_that_of_requests_not_of_replicas() -> None:
    """Less than a kilobyte a request; 64 replicas hold the same requests in about as much as eight."""
    few, many, spread = (
        measure.told(MEMORY, str(replicas), str(requests))[0] for replicas, requests in ((8, 125), (8, 1250), (64, 156))
    )
    assert (many - few) * 1024 < 9_000
    assert spread < many + 32.0


@pytest.mark.slow
@pytest.mark.parametrize("router", ["least-loaded", "llm-d"])
def test_a_fleet_of_64(benchmark: Any, router: str) -> None:
    benchmark.pedantic(lambda: fleet(shared(50, 64), 64, router, 0.05), rounds=1)
