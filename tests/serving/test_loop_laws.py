"""Laws of the event loop, under any traffic and any rules."""

from __future__ import annotations

from dataclasses import replace
from math import inf
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphsim.serving.run_log import FINISHED, REFUSED, STATUSES, TIMED_OUT, TOO_LONG, UNFINISHED, RunLog, StepRun
from graphsim.traffic.table import BASE
from tests.serving.served_cases import PRESETS, Case, cases

TIMES = ("sent_s", "received_s", "admitted_s", "first_token_s", "finished_s", "load_stall_s")
COUNTS = ("status", "preemptions", "cached_tokens")
FEW = settings(max_examples=8, deadline=None, derandomize=True)
ANY_PRESET = st.sampled_from(sorted(PRESETS)).flatmap(cases)


def column(log: RunLog, name: str) -> Any:
    return np.array([step[StepRun.COLUMNS.index(name)] for step in log.runs])


def ended(log: RunLog, status: str) -> Any:
    return log.status == STATUSES.index(status)


@pytest.mark.slow
@pytest.mark.parametrize("preset", PRESETS)
@settings(max_examples=40, deadline=None, derandomize=True)
@given(data=st.data())
def test_the_jumping_loop_decides_as_the_reference_does(preset: str, data: st.DataObject) -> None:
    case = data.draw(cases(preset))
    log, reference = case.run(), case.reference()
    plain = reference.run()
    for name in TIMES:
        assert getattr(log, name) == pytest.approx(getattr(plain, name), abs=1e-6, nan_ok=True), name
    for name in COUNTS:
        assert (getattr(log, name) == getattr(plain, name)).all(), name
    assert column(log, "steps").sum() == len(plain.runs)
    assert np.array(log.loads) == pytest.approx(np.array(reference.store.loads if reference.store else []))


@pytest.mark.slow
@settings(max_examples=40, deadline=None, derandomize=True)
@given(case=st.sampled_from(sorted(PRESETS)).flatmap(lambda preset: cases(preset, plain_client=True)))
def test_gaps_are_those_between_the_tokens_of_the_reference(case: Case) -> None:
    log, reference = case.run(), case.reference()
    reference.run()
    expected = np.concatenate([np.diff(times) for times in reference.token_s.values()] or [np.zeros(0)])
    seconds, counts = (np.array(part) for part in zip(*log.gaps, strict=True)) if log.gaps else (np.zeros(0),) * 2
    assert counts.sum() == len(expected)
    assert (seconds * counts).sum() == pytest.approx(expected.sum(), abs=1e-6)
    if len(expected):
        assert seconds.max() == pytest.approx(expected.max(), abs=1e-3)


@FEW
@given(case=ANY_PRESET)
def test_every_request_ends_or_is_reported(case: Case) -> None:
    log = case.run()
    done = ended(log, FINISHED)
    assert np.isfinite(log.finished_s[done]).all() and np.isnan(log.finished_s[~done]).all()
    assert (log.sent_s[done] <= log.received_s[done]).all() and (log.received_s[done] <= log.admitted_s[done]).all()
    assert (log.admitted_s[done] < log.first_token_s[done]).all()
    assert (log.first_token_s[done] <= log.finished_s[done]).all()
    assert np.isnan(log.sent_s[ended(log, REFUSED)]).all()
    if case.client.timeout_s == inf:
        assert not ended(log, TIMED_OUT).any()
    if case.client.cutoff_s == inf:
        assert not ended(log, UNFINISHED).any()
    too_long = case.table.input_tokens + case.table.output_tokens > case.rules.max_model_len
    assert not (done & too_long).any() and (too_long | ~ended(log, TOO_LONG)).all()


@FEW
@given(case=st.sampled_from(sorted(PRESETS)).flatmap(lambda preset: cases(preset, plain_client=True)))
def test_tokens_in_are_tokens_out(case: Case) -> None:
    """Where nobody computes anything again, prompts but for what was cached, and answers but for their first tokens."""
    log = case.run()
    done = ended(log, FINISHED)
    if log.preemptions.any():
        assert column(log, "prompt_tokens").sum() >= (case.table.input_tokens - log.cached_tokens)[done].sum()
        return
    assert column(log, "prompt_tokens").sum() == (case.table.input_tokens - log.cached_tokens)[done].sum()
    assert (column(log, "batch") * column(log, "steps")).sum() == (case.table.output_tokens[done] - 1).sum()
    assert sum(count for _, count in log.gaps) == (case.table.output_tokens[done] - 1).sum()


@FEW
@given(case=ANY_PRESET)
def test_blocks_places_tokens_and_slots_are_never_above_capacity(case: Case) -> None:
    log, rules = case.run(), case.rules
    if not log.runs:
        return
    blocks = column(log, "kv_blocks")
    assert (blocks >= 0).all() and (blocks <= rules.kv_blocks).all()
    assert (column(log, "batch") + column(log, "prompts") <= rules.max_num_seqs).all()
    if rules.adapters.max_loras:
        assert (column(log, "adapters") <= rules.adapters.max_loras).all()
    if rules.chunked:
        assert (column(log, "batch") + column(log, "prompt_tokens") <= rules.max_num_batched_tokens).all()


@FEW
@given(case=ANY_PRESET)
def test_when_all_is_over_nobody_holds_a_block(case: Case) -> None:
    case = replace(case, client=replace(case.client, cutoff_s=inf))
    log = case.run()
    if log.runs:
        assert log.runs[-1][StepRun.COLUMNS.index("kv_blocks")] == 0 or ended(log, TIMED_OUT).any()


@FEW
@given(case=ANY_PRESET)
def test_without_adapters_slots_change_nothing(case: Case) -> None:
    base = replace(case, table=replace(case.table, adapter=np.full(len(case.table), BASE)))
    none = replace(case.rules.adapters, max_loras=0, base_takes_place=False)
    some = replace(case.rules.adapters, max_loras=3, base_takes_place=False)
    one, other = (replace(base, rules=replace(base.rules, adapters=adapters)).run() for adapters in (none, some))
    for name in (*TIMES, *COUNTS):
        assert np.array_equal(getattr(one, name), getattr(other, name), equal_nan=True)


@FEW
@given(case=ANY_PRESET)
def test_the_same_input_gives_the_same_run(case: Case) -> None:
    one, other = case.run(), case.run()
    assert one.runs == other.runs and one.gaps == other.gaps and one.loads == other.loads
    for name in (*TIMES, *COUNTS):
        assert np.array_equal(getattr(one, name), getattr(other, name), equal_nan=True)
