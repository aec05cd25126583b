"""What limited a run is read from its log: small logs by hand, one for each cause."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from graphsim.serving.bottlenecks import Bottlenecks, bottlenecks
from graphsim.serving.rules import AdapterRules, Rules
from graphsim.serving.run_log import FINISHED, STATUSES, RunLog, StepRun, empty_log
from graphsim.traffic.table import request_table

RULES = Rules(
    kv_blocks=100, max_num_seqs=8, max_num_batched_tokens=512, adapters=AdapterRules(max_loras=2, max_cpu_loras=4)
)


def row(**columns: float) -> tuple[float, ...]:
    usual = dict.fromkeys(StepRun.COLUMNS, 0.0) | {"seconds": 1.0, "steps": 1.0, "batch": 1.0, "waiting": 1.0}
    return tuple((usual | columns)[name] for name in StepRun.COLUMNS)


def log_of(*runs: tuple[float, ...], end_s: float = 0.0, **columns: Any) -> RunLog:
    """Four requests that spend 0.1 s in the front end, 5 in the queue, 0.5 to the first token and 2 on the rest."""
    log, sent = empty_log(4), np.arange(4.0)
    log.status[:] = STATUSES.index(FINISHED)
    log.sent_s, log.received_s, log.admitted_s = sent, sent + 0.1, sent + 5.1
    log.first_token_s, log.finished_s = sent + 5.6, sent + 7.6
    log.runs, log.end_s = list(runs), end_s or sum(run[1] for run in runs)
    for name, value in columns.items():
        setattr(log, name, value)
    return log


def found(*runs: tuple[float, ...], rules: Rules = RULES, adapter: Any = (0, 0, 1, 1), **more: Any) -> Bottlenecks:
    return bottlenecks(request_table(np.arange(4.0), [8] * 4, [4] * 4, adapter=adapter), rules, log_of(*runs, **more))


@pytest.mark.parametrize(
    ("run", "cause"),
    [
        ({"batch": 8.0}, "places"),
        ({"kv_blocks": 98.0}, "kv"),
        ({"adapters": 2.0, "kv_blocks": 50.0}, "slots"),
        ({"batch": 3.0, "prompts": 1.0, "prompt_tokens": 509.0}, "budget"),
    ],
)
def test_what_is_full_is_what_the_waiting_wait_for(run: dict[str, float], cause: str) -> None:
    seen = found(row(**run), row(start_s=1.0, waiting=0.0))
    assert seen.waiting[cause] == 1.0 and sum(seen.waiting.values()) == 1.0
    assert seen.limit == cause
    assert seen.lines()[2].startswith("waiting requests wait for ")


def test_with_one_adapter_at_a_time_in_the_weights_the_waiting_wait_for_their_turn() -> None:
    table = request_table(np.arange(4.0), [8] * 4, [4] * 4, adapter=(0, 0, 1, 1))
    seen = bottlenecks(table, RULES, log_of(row(), row(start_s=1.0, batch=8.0)), in_turn=True)
    assert seen.waiting["turn"] == 0.5 and seen.waiting["places"] == 0.5 and "step" not in seen.waiting
    assert bottlenecks(table, RULES, log_of(row()), in_turn=True).limit == "turn"


def test_waiting_is_weighted_by_how_many_wait_and_how_long() -> None:
    seen = found(row(batch=8.0, waiting=3.0), row(kv_blocks=99.0, seconds=2.0), row(waiting=1.0))
    assert seen.waiting == pytest.approx({"places": 0.5, "kv": 1 / 3, "slots": 0.0, "budget": 0.0, "step": 1 / 6})


def test_time_is_split_over_the_ways_of_a_request() -> None:
    seen = found(row(), end_s=4.0)
    assert seen.spent == pytest.approx({"front end": 0.1, "queue": 5.0, "first token": 0.5, "generation": 2.0})
    assert seen.slowest == pytest.approx(seen.spent)
    assert seen.busy == 0.25 and seen.queue_share == pytest.approx(5.0 / 7.6)
    assert (
        "a request spends 7.6 s (1% in front end, 66% in queue, 7% in first token, 26% in generation)"
        in (seen.lines()[1])
    )


def test_loads_and_switches_that_hold_the_batch_up_limit() -> None:
    assert found(row(stall_s=0.5, adapters=2.0)).limit == "loads"
    assert found(row(), switches=[(0.0, 0.5, 1)]).limit == "switches"


def test_where_a_token_takes_longer_than_alone_compute_limits() -> None:
    log = log_of(row(waiting=0.0, batch=4.0, steps=10.0), end_s=1.02)
    log.admitted_s = log.received_s
    log.first_token_s = log.admitted_s + 0.5
    log.finished_s = log.first_token_s + 2.0
    table = request_table(np.arange(4.0), [8] * 4, [4] * 4)
    seen = bottlenecks(table, RULES, log, alone_s=0.05)
    assert seen.slowdown == 2.0 and seen.limit == "compute"
    assert "a token takes 2.0 times as long as alone" in seen.lines()[0]
    assert bottlenecks(table, RULES, log, alone_s=0.08).limit == "nothing"
    assert bottlenecks(table, replace(RULES, adapters=AdapterRules()), log).worst_adapter is None


def test_the_adapter_that_suffers_is_named() -> None:
    count = 30
    log = empty_log(count)
    log.status[:] = STATUSES.index(FINISHED)
    adapter = np.arange(count) % 3
    log.sent_s = log.received_s = log.admitted_s = np.zeros(count)
    log.first_token_s = np.where(adapter == 2, 9.0, 1.0)
    log.finished_s = log.first_token_s + 1.0
    table = request_table(np.zeros(count), [8] * count, [4] * count, adapter=adapter)
    seen = bottlenecks(table, RULES, log)
    assert seen.worst_adapter == (2, 9.0, 1.0)
    assert "adapter 2 suffers: its first tokens take 9 s" in seen.lines()[-1]


def test_nothing_finished_is_no_error() -> None:
    log = empty_log(4)
    seen = bottlenecks(request_table(np.zeros(4), [8] * 4, [4] * 4), RULES, log)
    assert seen.busy == 0.0 and len(seen.lines()) == 1
    assert seen.to_dict()["worst_adapter"] is None
