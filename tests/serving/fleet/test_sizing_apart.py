"""Fleets with workers that only compute prompts, and with drafts, among those that are offered; and who works on it."""

from __future__ import annotations

import json
from typing import Any

import pandas as pd
import pytest

import graphsim as gs
from graphsim.cli import main
from graphsim.sweeps.workers import Processes, done_by, standing
from tests.command import status_of

LIMITS = {"ttft_s": 0.3, "tpot_s": 0.01}
TRAFFIC = gs.Traffic.poisson(rate=60, requests=200, input_tokens=800, output_tokens=40)
PRICES = {"l4": 1.0, "l40s": 3.0}
APART = {"hardware": ["l4"], "prefill_replicas": [0, 1, 4], "prefill_hardware": ["l4", "l40s"], "replicas": range(1, 9)}


@pytest.fixture(scope="module")
def apart() -> pd.DataFrame:
    return gs.size_fleet("gpt-2", TRAFFIC, LIMITS, APART, price_per_hour=PRICES, attainment=0.9, runners_up=9)


@pytest.mark.slow
def test_prefill_workers_are_offered_once_and_paid_for(apart: pd.DataFrame) -> None:
    assert len(apart) == 5  # without prefill workers there is no device of theirs
    assert apart.loc[apart["prefill_replicas"] == 0, "prefill_hardware"].isna().all()
    ran = apart[apart["replicas"] > 0]
    ahead = ran["prefill_replicas"] * ran["prefill_hardware"].map(PRICES).fillna(0.0)
    assert ran["cost_per_hour"].tolist() == (ahead + ran["replicas"] * 1.0).tolist()
    assert ran["devices"].tolist() == (ran["prefill_replicas"] + ran["replicas"]).tolist()
    assert apart["kept"].iloc[0] and apart[apart["kept"]]["cost_per_hour"].is_monotonic_increasing


@pytest.mark.slow
def test_what_was_found_is_what_serve_says(apart: pd.DataFrame) -> None:
    row = apart[apart["kept"] & (apart["prefill_replicas"] > 0)].iloc[0]
    ahead = gs.Deployment("gpt-2", row["prefill_hardware"])
    service = gs.serve(
        gs.Deployment("gpt-2", "l4"), TRAFFIC, prefill=ahead, prefill_replicas=int(row["prefill_replicas"]),
        replicas=int(row["replicas"]),
    )  # fmt: skip
    assert service.goodput(**LIMITS).share == row["attainment"] >= 0.9


@pytest.mark.slow
def test_bounds_rule_out_nothing_that_keeps_the_limits(apart: pd.DataFrame) -> None:
    for row in apart[~apart["kept"] & (apart["replicas"] == 0)].to_dict("records"):
        service = gs.serve(
            gs.Deployment("gpt-2", "l4"), TRAFFIC, replicas=8, prefill_replicas=int(row["prefill_replicas"]),
            prefill=gs.Deployment("gpt-2", row["prefill_hardware"]),
        )  # fmt: skip
        assert service.goodput(**LIMITS).share < 0.9, row["reason"]


@pytest.mark.slow
def test_a_draft_is_a_choice_like_any_other() -> None:
    drafts = [None, gs.Speculation(draft="ngram", tokens=3, acceptance=0.9)]
    found = gs.size_fleet(
        "gpt-2", TRAFFIC, LIMITS, {"hardware": "l4", "speculation": drafts, "replicas": range(1, 9)}, attainment=0.9
    )
    assert set(found["speculation"]) == {"none", drafts[1].label}
    for draft in drafts:
        row = found[found["speculation"] == ("none" if draft is None else draft.label)].iloc[0]
        service = gs.serve("gpt-2", "l4", TRAFFIC, replicas=int(row["replicas"]), speculation=draft)
        assert service.goodput(**LIMITS).share == row["attainment"]


class _Later:
    """A future that is no `concurrent.futures.Future`, and done at its third look."""

    def __init__(self, value: Any, error: Exception | None = None) -> None:
        self.value, self.error, self.looks = value, error, 0

    def done(self) -> bool:
        self.looks += 1
        return self.looks > 2

    def cancelled(self) -> bool:
        return False

    def cancel(self) -> None:
        raise AssertionError("nothing is left to cancel")

    def exception(self) -> Exception | None:
        return self.error

    def result(self) -> Any:
        return self.value


class _Cluster:
    """As Dask's client: it has `submit`, futures of its own, and a worker that is killed once."""

    def __init__(self) -> None:
        self.calls = 0

    def submit(self, function: Any, /, *args: Any) -> Any:
        self.calls += 1
        return _Later(None, OSError("killed")) if self.calls == 2 else _Later(function(*args))


class _Client:
    def __init__(self) -> None:
        self.executor = _Cluster()

    def get_executor(self) -> Any:
        return self.executor


@pytest.mark.parametrize("cluster", [_Cluster(), _Client()])
def test_whoever_has_submit_works_and_what_it_loses_is_done_here(cluster: Any) -> None:
    assert sorted(done_by(cluster, str, range(5))) == [(n, str(n)) for n in range(5)]
    assert getattr(cluster, "executor", cluster).calls == 5


def test_a_pool_has_no_more_processes_than_work_or_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(4)), raising=False)
    for workers, pieces, processes in ((1, 9, 1), (9, 1, 1), (2, 9, 2), (9, 3, 3), (99, 99, 4)):
        assert Processes(workers).at_once(pieces) == processes


FLEET = [
    "fleet", "gpt-2", "--hardware", "l4", "--rate", "60", "--requests", "100", "--input", "800", "--output", "40",
    "--slo", "ttft=0.3,tpot=0.01", "--attainment", "0.9", "--prefill-replicas", "0-2", "--prefill-tp", "1",
    "--speculation", "none",
]  # fmt: skip


@pytest.mark.slow
def test_the_command_offers_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*FLEET, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert {row["prefill_replicas"] for row in told["fleets"]} == {0, 1, 2}
    assert main(FLEET) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "prefill" in lines[3].split() and "-" in {line.split()[1] for line in lines[5:8]}


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--prefill-replicas", "two"], "--prefill-replicas: 'two' is not a whole number or a range"),
        (["--prefill-tp", "0"], "--prefill-tp: '0' is not allowed"),
        (["--speculation", "draft=ngram"], "--speculation: tokens, acceptance missing"),
        (["--router", "placed"], "router = 'placed' is not known with prefill workers"),
    ],
)
def test_mistakes_are_one_sentence(capsys: pytest.CaptureFixture[str], more: list[str], words: str) -> None:
    given = [*FLEET, *more]
    if more[0] == "--router":
        given[given.index("0-2")] = "1,2"
    assert status_of(given) == 2
    told = capsys.readouterr()
    assert words in told.err and told.err.count("\n") == 1 and not told.out


def test_a_pool_is_used_again_until_it_breaks() -> None:
    made: list[_Pool] = []

    def make() -> Any:
        made.append(_Pool())
        return made[-1]

    workers, close = standing(make)
    assert sorted(done_by(workers, str, range(3))) == sorted(done_by(workers, str, range(3)))
    assert len(made) == 1 and not made[0].closed
    made[0].broken = True
    assert sorted(done_by(workers, str, range(3))) == [(n, str(n)) for n in range(3)]
    assert len(made) == 2 and made[0].closed and not made[1].closed
    close()
    assert made[1].closed
    cluster = _Cluster()
    assert standing(cluster)[0] is cluster and standing(None)[0] is None


class _Pool:
    broken = closed = False

    def submit(self, function: Any, /, *args: Any) -> Any:
        if self.broken:
            raise RuntimeError("cannot schedule new futures after a process died")
        return _Later(function(*args))

    def shutdown(self, *, cancel_futures: bool) -> None:
        self.closed = cancel_futures
