"""One engine driven from outside: submitting requests one by one gives what `run` gives for all at once."""

from __future__ import annotations

from math import inf
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from graphsim.errors import ConfigError
from graphsim.serving.driven_engine import DrivenEngine
from graphsim.serving.loop import run
from graphsim.serving.requests import RequestMaker
from graphsim.serving.rules import Rules
from graphsim.serving.run_log import FINISHED, STATUSES, RunLog, empty_log
from graphsim.traffic.table import NOBODY, request_table
from tests.serving.line_price import LinePrice
from tests.serving.served_cases import PRESETS, PRICE, Case, cases

COLUMNS = (
    "sent_s", "received_s", "admitted_s", "first_token_s", "finished_s", "status", "preemptions", "cached_tokens",
    "load_stall_s",
)  # fmt: skip
ANY_PRESET = st.sampled_from(sorted(PRESETS)).flatmap(cases)
SERVER = Rules(kv_blocks=1000, max_num_batched_tokens=512, max_num_seqs=16)


def same(log: RunLog, expected: RunLog, within_s: float) -> None:
    """But for requests that never left their client; to the last bit where `within_s` is 0."""
    received = np.isfinite(expected.received_s)
    for name in COLUMNS:
        found, wanted = getattr(log, name)[received], getattr(expected, name)[received]
        assert found == pytest.approx(wanted, rel=0.0, abs=within_s, nan_ok=True), name
    if not within_s:
        assert np.array_equal(np.asarray(log.runs), np.asarray(expected.runs))
        assert np.array_equal(np.asarray(log.gaps), np.asarray(expected.gaps))
        assert (log.loads, log.evicted) == (expected.loads, expected.evicted)


def driven(case: Case, expected: RunLog, ahead_s: float) -> tuple[RunLog, list[Any]]:
    """Submits each request so long before it is received."""
    log = empty_log(len(case.table))
    engine = DrivenEngine(
        case.rules, PRICE, log=log, client=case.client, reply_s=case.front.reply_s, store=case.store()
    )
    maker, ended = RequestMaker(case.table, case.rules.block_tokens), []
    rows = np.flatnonzero(np.isfinite(expected.received_s))
    coming = [int(row) for row in rows[np.argsort(expected.received_s[rows], kind="stable")]]

    def submit() -> None:
        row = coming.pop(0)
        engine.put(maker.one(row, float(expected.sent_s[row])), float(expected.received_s[row]), row)

    while True:
        while coming and expected.received_s[coming[0]] - ahead_s <= engine.now:
            submit()
        while coming and expected.received_s[coming[0]] - ahead_s < engine.next_time:
            submit()
        if engine.next_time == inf:
            return engine.close(), ended
        ended += engine.step()


@pytest.mark.slow
@settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.filter_too_much])
@given(case=ANY_PRESET, ahead_s=st.sampled_from([0.0, 0.05, inf]))
def test_it_does_not_matter_how_early_a_request_is_submitted(case: Case, ahead_s: float) -> None:
    """To the last bit where clients wait for nobody; else `run` cuts its steps where they send, and times are rounded.

    Who is given up, or is too long, frees a connection for one that came in the past, which nobody could have submitted
    by then.
    """
    listens = case.client.connections < inf or case.concurrency is not None
    assume(not listens or (case.client.timeout_s == inf and case.rules.max_model_len == inf))
    expected = case.run()
    log, ended = driven(case, expected, ahead_s)
    same(log, expected, 1e-9 if listens or (case.table.after != NOBODY).any() else 0.0)
    answered = np.flatnonzero(expected.status == STATUSES.index(FINISHED))
    assert case.client.cutoff_s < inf or sorted(e.row for e in ended if e.answered) == answered.tolist()


def engine_of(*inputs: int, outputs: int = 10) -> tuple[DrivenEngine, RequestMaker]:
    table = request_table(np.zeros(len(inputs)), np.array(inputs), np.full(len(inputs), outputs))
    return DrivenEngine(SERVER, PRICE, log=empty_log(len(table))), RequestMaker(table, SERVER.block_tokens)


def test_a_newcomer_cuts_a_run_of_steps_under_way() -> None:
    engine, maker = engine_of(20, 30, outputs=400)
    engine.submit(maker.one(0, 0.0), 0.0)
    engine.step()
    alone = engine.next_time
    newcomer = engine.now + 0.4 * (alone - engine.now)
    engine.submit(maker.one(1, newcomer), newcomer)
    assert (engine.running, engine.waiting) == (1, 1)
    assert newcomer <= engine.next_time < alone
    engine.step()
    engine.step()
    assert (engine.running, engine.waiting) == (2, 0)


def test_ends_are_handed_out_as_they_come() -> None:
    engine, maker = engine_of(20, 20, outputs=5)
    ends: list[int] = []
    for row, at in enumerate((0.0, 1.0)):
        engine.submit(maker.one(row, at), at)
    while engine.next_time < inf:
        for end in engine.step():
            assert end.answered and end.at_s == engine.now
            ends.append(end.row)
    assert ends == [0, 1]
    log = engine.close()
    table = request_table([0.0, 1.0], [20, 20], [5, 5])
    assert log.finished_s.tolist() == run(table, SERVER, LinePrice()).finished_s.tolist()


def test_blocks_in_use_grow_along_a_run_of_steps() -> None:
    engine, maker = engine_of(16, outputs=160)
    engine.submit(maker.one(0, 0.0), 0.0)
    engine.step()
    middle = (engine.now + engine.next_time) / 2
    seen = [engine.kv_blocks(at) for at in (engine.now, middle, engine.next_time)]
    assert seen[0] < seen[1] < seen[2]
    begun = engine.kv_blocks(engine.now)
    engine.step()
    assert engine.kv_blocks(engine.now) <= seen[2] and begun == seen[0]


def test_what_cannot_be_is_told() -> None:
    engine, maker = engine_of(20)
    with pytest.raises(ConfigError, match="nothing left to do until another request is submitted"):
        engine.step()
    engine.submit(maker.one(0, 1.0), 1.0)
    engine.step()
    with pytest.raises(ConfigError, match="received_s is 0.5, but the engine's clock is at 1 s"):
        engine.submit(maker.one(0, 0.5), 0.5)
