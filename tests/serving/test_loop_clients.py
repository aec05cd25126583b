"""Who is sent when: connections, patience, sessions, closed loops, the end of a run, bad tables."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from graphsim.errors import ConfigError
from graphsim.serving.front import Front
from graphsim.serving.loop import run
from graphsim.serving.rules import Rules
from graphsim.serving.run_log import FINISHED, REFUSED, STATUSES, TIMED_OUT, TOO_LONG, UNFINISHED, RunLog
from graphsim.traffic.client import Client
from graphsim.traffic.table import request_table
from tests.serving.line_price import LinePrice
from tests.serving.test_worked_traces import Ticks

RULES = Rules(kv_blocks=100, block_tokens=4, max_num_batched_tokens=100, max_num_seqs=4)
NAN = float("nan")


def status(log: RunLog) -> list[str]:
    return [STATUSES[number] for number in log.status]


def test_the_way_in_and_out_is_part_of_a_request() -> None:
    """Sent at 1, heard of at 1 + 0.5 + 2 + 4 * 0.25 = 4.5, first token at 18.5, last at 28.5, each 3 + 1 s later."""
    front, client = Front(request_s=2.0, token_s=0.25, reply_s=3.0), Client(send_s=0.5, reply_s=1.0)
    log = run(request_table([1.0], [4], [2]), RULES, Ticks(), front=front, client=client)
    assert (log.sent_s[0], log.received_s[0], log.admitted_s[0]) == (1.0, 4.5, 4.5)
    assert (log.first_token_s[0], log.finished_s[0]) == (22.5, 32.5)


def test_a_front_end_keeps_the_order_of_requests() -> None:
    """All sent at once, one a step: the first has the longest prompt, 0 + 2 + 8 * 0.5, and none overtakes it."""
    front, rules = Front(request_s=2.0, token_s=0.5), Rules(kv_blocks=100, block_tokens=4, max_num_seqs=1)
    log = run(request_table([0.0, 0.0, 9.0], [8, 2, 2], [1, 1, 1]), rules, Ticks(), front=front)
    assert log.received_s.tolist() == [6.0, 6.0, 12.0]
    assert log.admitted_s[0] == 6.0 < log.admitted_s[1] < log.admitted_s[2]


def test_a_closed_loop_sends_the_next_when_one_is_answered() -> None:
    """Two at a time: 0 and 1 until 14 + 10 and 14 + 20; 2 is sent at 28, as its client has the answer of 0 then."""
    table = request_table([NAN] * 3, [2, 2, 2], [2, 3, 1])
    log = run(table, RULES, Ticks(), concurrency=2, front=Front(reply_s=4.0))
    assert log.sent_s.tolist() == [0.0, 0.0, 28.0]
    assert log.finished_s.tolist() == [28.0, 38.0, 34.0 + 12.0 + 4.0]


def test_a_session_keeps_its_place_in_a_closed_loop() -> None:
    """One user: the follow-up goes ahead of the next session, 5 s after its answer at 12; that one at 29."""
    table = request_table([NAN] * 3, [2, 2, 2], [1, 1, 1], after=[-1, 0, -1], think_s=[0.0, 5.0, 0.0])
    assert run(table, RULES, Ticks(), concurrency=1).sent_s.tolist() == [0.0, 17.0, 29.0]


@pytest.mark.parametrize("refuses", [True, False])
def test_beyond_its_connections_a_client_waits_or_gives_up(refuses: bool) -> None:
    """One connection, taken until 12 by the first; another's time begins when it is sent."""
    table = request_table([0.0, 1.0, 2.0, 40.0], [2] * 4, [1] * 4)
    log = run(table, RULES, Ticks(), client=Client(connections=1, refuses=refuses))
    if refuses:
        assert status(log) == [FINISHED, REFUSED, REFUSED, FINISHED]
        assert np.isnan(log.sent_s[1:3]).all() and log.sent_s[3] == 40.0
    else:
        assert log.sent_s.tolist() == [0.0, 12.0, 24.0, 40.0]


def test_who_is_given_up_leaves_its_place_and_its_blocks() -> None:
    """Patience of 31 s: 0 has its first token at 14 and would end at 54; it is aborted in the step that begins at 34.

    1 comes at 30 and has all blocks of the cache from then on: 34 + 26 until its only token.
    """
    rules = Rules(kv_blocks=4, block_tokens=4, max_num_batched_tokens=100, max_num_seqs=4)
    log = run(request_table([0.0, 30.0], [4, 16], [5, 1]), rules, Ticks(), client=Client(timeout_s=31.0))
    assert status(log) == [TIMED_OUT, FINISHED]
    assert log.first_token_s.tolist() == [14.0, 60.0] and np.isnan(log.finished_s[0])


def test_an_answer_that_comes_too_late_is_no_answer() -> None:
    log = run(request_table([0.0], [4], [2]), RULES, Ticks(), client=Client(timeout_s=24.0, reply_s=0.5))
    assert status(log) == [TIMED_OUT] and log.first_token_s[0] == 14.5


def test_a_chat_ends_where_a_turn_is_not_answered() -> None:
    table = request_table([0.0, NAN, NAN], [4, 4, 4], [9, 1, 1], after=[-1, 0, 1])
    log = run(table, RULES, Ticks(), client=Client(timeout_s=30.0))
    assert status(log) == [TIMED_OUT, REFUSED, REFUSED]


def test_what_comes_behind_the_cut_off_does_not_count() -> None:
    log = run(request_table([0.0, 0.0, 50.0], [2, 2, 2], [1, 5, 1]), RULES, Ticks(), client=Client(cutoff_s=40.0))
    assert status(log) == [FINISHED, UNFINISHED, UNFINISHED]
    assert log.end_s == 40.0 and np.isnan(log.finished_s[1]) and log.first_token_s[1] == 14.0


def test_requests_that_no_cache_or_length_allows_are_told_so() -> None:
    rules = Rules(kv_blocks=4, block_tokens=4, max_model_len=30)
    log = run(request_table([0.0, 0.0, 0.0], [14, 15, 8], [3, 3, 23]), rules, Ticks())
    assert status(log) == [FINISHED, TOO_LONG, TOO_LONG]


def test_one_client_after_the_other_takes_the_sum_of_steps_alone() -> None:
    """A prompt's step and each step of generation with one token more in the cache."""
    price = LinePrice()
    inputs, outputs = np.array([50, 90, 700]), np.array([30, 400, 2])
    log = run(request_table([NAN] * 3, inputs, outputs), Rules(kv_blocks=100), price, concurrency=1)
    for row in range(3):
        prompt = price.mixed(inputs[row], inputs[row] * (inputs[row] + 1) / 2, 1, 1, 0, 0, 0)
        steps = sum(price.decode(1, inputs[row] + step, 0)[0] for step in range(outputs[row] - 1))
        assert log.finished_s[row] - log.sent_s[row] == pytest.approx(prompt + steps, rel=1e-12)


def test_a_run_can_be_interrupted_and_shows_how_far_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("graphsim.serving.loop.PROGRESS_S", 0.0)
    seen: list[tuple[float, int]] = []

    def progress(simulated_s: float, ended: int) -> None:
        seen.append((simulated_s, ended))
        if ended >= 2:
            raise KeyboardInterrupt

    log = run(request_table([0.0, 50.0, 100.0], [2] * 3, [2] * 3), RULES, Ticks(), progress=progress)
    assert log.interrupted and status(log) == [FINISHED, FINISHED, UNFINISHED]
    assert log.end_s == seen[-1][0] == 72.0


@pytest.mark.parametrize(
    ("columns", "kwargs", "words"),
    [
        ({"input_tokens": [4, 0]}, {}, "request 1: input_tokens is 0; it must be 1 or more"),
        ({"output_tokens": [-3, 1]}, {}, "request 0: output_tokens is -3; it must be 1 or more"),
        ({"arrival_s": [0.0, -1.0]}, {}, "request 1: arrival_s is -1.0; it must be 0 or more"),
        ({"arrival_s": [0.0, NAN]}, {}, "request 1: arrival_s is missing; only a closed loop"),
        ({"after": [1, -1]}, {}, "request 0: after is 1; it must be an earlier row"),
        ({"adapter": [-1, 3]}, {}, "requests name adapters, but max_loras is 0"),
        ({}, {"concurrency": 0}, "concurrency is 0; it must be 1 or more"),
    ],
)
def test_bad_tables_are_told_in_a_sentence(columns: dict[str, Any], kwargs: dict[str, Any], words: str) -> None:
    table = request_table(**({"arrival_s": [0.0, 1.0], "input_tokens": [4, 4], "output_tokens": [1, 1]} | columns))
    with pytest.raises(ConfigError, match=words):
        run(table, RULES, Ticks(), **kwargs)
