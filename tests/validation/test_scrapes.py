"""A front end that stands still while its metrics are read."""

from __future__ import annotations

import numpy as np
import pytest

from graphsim.serving.run_log import RunLog, empty_log
from graphsim.traffic.table import BASE, RequestTable, request_table
from graphsim.validation.scrapes import Scrapes, combinations, told_later

STEP = 0.01


def served(adapters: list[int], arrivals: list[float], last: list[float]) -> tuple[RequestTable, RunLog, np.ndarray]:  # type: ignore[type-arg]
    """Requests that get their first token two steps after they come, and the ends of all steps."""
    count = len(adapters)
    table = request_table(arrivals, np.full(count, 8), np.full(count, 8), adapter=adapters)
    log = empty_log(count)
    log.sent_s[:] = log.received_s[:] = log.admitted_s[:] = arrivals
    log.first_token_s[:] = np.array(arrivals) + 2 * STEP
    log.finished_s[:] = last
    return table, log, STEP * np.arange(1, 2000)


def test_each_combination_of_adapters_counts_once() -> None:
    """0 waits; 0 runs; 1 waits beside it; both run; 1 alone; none again, and 0 waits and runs as before."""
    table, log, ends = served([0, 1, 0], [0.005, 1.005, 5.005], [2.005, 3.005, 6.005])
    seen, names = combinations(table, log, ends)
    assert names.tolist() == [1, 1, 2, 2, 1]
    assert seen == pytest.approx([0.01, 0.03, 1.01, 1.03, 2.01])


def test_requests_without_adapters_are_not_told() -> None:
    table, log, ends = served([BASE, BASE], [0.0, 1.0], [2.0, 3.0])
    assert len(combinations(table, log, ends)[0]) == 0


def test_who_comes_during_a_reading_waits_for_its_end() -> None:
    table, log, ends = served([0, 1, 2, 3], [0.1, 0.995, 1.005, 1.5], [0.5, 4.0, 4.0, 1.9])
    told_later(table, log, ends, Scrapes(pause_s=1.0, line_s=0.05, name_s=0.0), 5.0)
    # two combinations until 1 s, and one from 0.995 on: readings take 0.15 s, from 1 to 1.15 s, then begin at 2.15 s
    waits = log.first_token_s - log.sent_s
    assert waits[0] == pytest.approx(0.02) and log.finished_s[0] == 0.5
    assert log.first_token_s[1] == pytest.approx(1.15, abs=0.06)  # its first token comes while the reading goes on
    assert log.received_s[2] == pytest.approx(log.first_token_s[1]) and waits[2] > 0.1
    assert waits[3] == pytest.approx(0.02) and log.finished_s[3] == 1.9


def test_nobody_waits_for_readings_that_take_no_time() -> None:
    table, log, ends = served([0, 1], [0.1, 0.9], [2.0, 2.5])
    before = log.first_token_s.copy()
    told_later(table, log, ends, Scrapes(pause_s=0.5, line_s=0.0, name_s=0.0), 3.0)
    assert (log.first_token_s == before).all()
