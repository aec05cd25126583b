"""How fast the event loop is against real time and against the loop that looks at every request in every step.

`pytest tests/benchmarks/test_serving_speed.py --benchmark-enable -m "slow or not slow"` prints times, and keeps with
them how many times faster than real time the run was, requests per second, and events. No absolute time is asserted.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from graphsim.serving.adapter_store import AdapterStore
from graphsim.serving.loop import run
from graphsim.serving.rules import AdapterRules, Rules
from graphsim.serving.run_log import FINISHED, STATUSES, RunLog
from graphsim.traffic.table import BASE, RequestTable, request_table
from tests.benchmarks import measure
from tests.serving.line_price import LinePrice
from tests.serving.step_by_step import Reference

pytest.importorskip("pytest_benchmark")

Benchmark = Callable[..., Any]


class FlatPrice(LinePrice):
    """The same for any context."""

    def decode(self, batch: int, context: int, adapters: int) -> tuple[float, float, int]:
        return self.step_s + self.sequence_s * batch, 0.0, 10**9


PRICE, FLAT = LinePrice(), FlatPrice()
SERVER = Rules(kv_blocks=60_000, max_num_batched_tokens=2048, adapters=AdapterRules(max_loras=128))


def chat(requests: int, rate: float, adapters: int = 0, output_tokens: int = 200, seed: int = 0) -> RequestTable:
    """Poisson arrivals of prompts of 260 tokens on average, and of answers."""
    draw = np.random.default_rng(seed)
    return request_table(
        np.cumsum(draw.exponential(1.0 / rate, requests)), draw.integers(20, 500, requests),
        draw.integers(1, 2 * output_tokens, requests),
        adapter=draw.integers(0, adapters, requests) if adapters else np.full(requests, BASE),
    )  # fmt: skip


def serve(table: RequestTable, price: LinePrice = PRICE) -> RunLog:
    log = run(table, SERVER, price, store=AdapterStore(SERVER.adapters, price.load))
    assert (log.status == STATUSES.index(FINISHED)).all()
    return log


def cpu_s(call: Callable[[], object]) -> float:
    start = time.process_time()
    call()
    return time.process_time() - start


def timed(benchmark: Benchmark, table: RequestTable) -> RunLog:
    found: list[RunLog] = []
    seconds: list[float] = []
    benchmark.pedantic(lambda: seconds.append(cpu_s(lambda: found.append(serve(table)))), rounds=1)  # type: ignore[attr-defined]
    log = found[0]
    benchmark.extra_info |= {  # type: ignore[attr-defined]
        "times_real_time": log.end_s / seconds[0], "requests_per_cpu_s": len(table) / seconds[0],
        "events": len(log.runs), "steps": sum(row[2] for row in log.runs),
    }  # fmt: skip
    return log


@pytest.mark.slow
def test_an_hour_of_a_server_with_adapters(benchmark: Benchmark) -> None:
    """128 adapters at 7.5 requests per second, as of bsc-0001."""
    log = timed(benchmark, chat(27_000, 7.5, adapters=128))
    assert log.end_s > 3500.0


@pytest.mark.slow
@pytest.mark.parametrize("rate", [1.0, 10.0])
def test_an_uncontended_chat(benchmark: Benchmark, rate: float) -> None:
    timed(benchmark, chat(3_000, rate))


@pytest.mark.slow
def test_the_jumping_loop_is_faster_than_a_look_at_every_request() -> None:
    """The more so, the more requests run: they cost nothing in a step of generation."""
    table = chat(300, 10.0)
    jumping = min(cpu_s(lambda: serve(table)) for _ in range(3))
    assert cpu_s(lambda: Reference(table, SERVER, PRICE).run()) > 3 * jumping


def test_calls_grow_with_requests_alone() -> None:
    """Twice as many requests make about twice as many calls."""
    few, many = (measure.calls(lambda n=n: serve(chat(n, 5.0))) for n in (300, 600))
    assert 1.8 < many / few < 2.2


def test_calls_do_not_grow_with_the_length_of_answers() -> None:
    """Where a request is alone, a thousand tokens take as many calls as ten."""
    short, long = (measure.calls(lambda n=n: serve(chat(200, 0.01, output_tokens=n), FLAT)) for n in (10, 1000))
    assert long < 1.1 * short


def test_a_step_costs_the_same_however_many_requests_run() -> None:
    """Calls per event, with a few requests in the batch and with a hundred."""

    def per_event(output_tokens: int) -> tuple[float, float]:
        table = chat(400, 5.0, output_tokens=output_tokens)
        logs: list[RunLog] = []
        made = measure.calls(lambda: logs.append(serve(table, FLAT)))
        return made / len(logs[0].runs), max(row[3] for row in logs[0].runs)

    (few, small), (many, large) = per_event(20), per_event(2000)
    assert large > 100 > 10 > small
    assert many < 1.2 * few
