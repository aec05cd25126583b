"""What each adapter got of what it asked for."""

from __future__ import annotations

import numpy as np
import pytest

from graphsim.serving.fairness import fairness, jain_index
from graphsim.serving.run_log import FINISHED, STATUSES, empty_log
from graphsim.traffic.table import BASE, request_table


def test_jains_index_is_one_for_equals_and_one_over_n_for_a_single_winner() -> None:
    assert jain_index([3.0, 3.0, 3.0]) == pytest.approx(1.0)
    assert jain_index([1.0, 0.0, 0.0, 0.0]) == pytest.approx(0.25)
    assert jain_index([]) == 1.0
    assert jain_index([1.0, 2.0, 3.0]) == pytest.approx(36.0 / (3 * 14.0))


def test_a_starved_adapter_shows_in_share_wait_and_index() -> None:
    table = request_table([0.0, 1.0, 2.0, 3.0, 9.0], [10] * 5, [10] * 5, adapter=[0, 0, 1, 1, BASE])
    log = empty_log(5)
    log.sent_s[:] = table.arrival_s
    log.admitted_s[:] = [0.5, 1.5, 8.0, 20.0, np.nan]
    log.finished_s[:] = [1.0, 2.0, 8.5, 21.0, np.nan]
    log.status[:4] = STATUSES.index(FINISHED)
    log.end_s = 30.0
    found = fairness(table, log)
    assert found.adapters.tolist() == [BASE, 0, 1]
    assert found.served_share.tolist() == [0.0, 1.0, 0.5]  # by 9 s, when the last request was sent
    assert found.longest_wait_s.tolist() == [21.0, 0.5, 17.0]
    assert found.jain_index == pytest.approx(1.5**2 / (3 * 1.25))


def test_a_burst_is_judged_where_half_of_it_is_answered() -> None:
    table = request_table([0.0] * 4, [10] * 4, [10] * 4, adapter=[0, 0, 1, 1])
    log = empty_log(4)
    log.sent_s[:], log.admitted_s[:] = 0.0, [0.0, 0.0, 1.0, 1.0]
    log.finished_s[:], log.status[:] = [1.0, 1.0, 2.0, 2.0], STATUSES.index(FINISHED)
    assert fairness(table, log).served_share.tolist() == [1.0, 0.0]
