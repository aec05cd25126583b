"""Processes and memory: never more than there is, and the sentence comes before the work."""

from __future__ import annotations

from typing import Any

import pytest

import graphsim as gs
from graphsim.cli import main
from graphsim.sweeps import room, workers
from graphsim.sweeps.grid import grid_of
from graphsim.sweeps.job import jobs_of
from graphsim.sweeps.sweep import REMOTE_BLOCK, remote_jobs
from graphsim.sweeps.workers import Processes, done_by


@pytest.mark.parametrize(("asked", "cores", "pieces", "expected"), [
    (1, 8, 100, 1), (4, 8, 100, 4), (64, 8, 100, 8), (64, 8, 3, 3), (10**6, 8, 10**6, 8), (4, 8, 0, 1),
])  # fmt: skip
def test_processes_never_exceed_cores_or_pieces(
    asked: int, cores: int, pieces: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "cores", lambda: cores)
    assert Processes(asked).at_once(pieces) == expected


def test_an_executor_is_made_for_the_pieces_that_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    from concurrent.futures import ThreadPoolExecutor

    made: list[int] = []

    def pool(count: int) -> ThreadPoolExecutor:
        made.append(count)
        return ThreadPoolExecutor(count)

    monkeypatch.setattr(workers, "cores", lambda: 64)
    monkeypatch.setattr("concurrent.futures.ProcessPoolExecutor", pool)
    assert sorted(found for _, found in done_by(Processes(50), abs, [-1, -2, -3])) == [1, 2, 3]
    assert made == [3]


@pytest.mark.parametrize("choices", [
    {"batch": [1, 2]}, {"batch": [1, 2], "tp": [1, 2], "precision": ["bf16", "fp8"]},
    {"batch": list(range(1, 700)), "input_tokens": list(range(1, 800)), "tp": [1, 2]},
])  # fmt: skip
def test_jobs_are_no_more_than_those_that_are_made(choices: dict[str, Any]) -> None:
    grid = grid_of("llama-3.2-1b", "l4", choices, (), ())
    made = len(jobs_of(grid, REMOTE_BLOCK, here=True))
    assert 1 <= remote_jobs(grid) <= made
    assert remote_jobs(grid) > 1 or made == 1


def test_a_table_that_cannot_fit_says_where_it_could_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "free_bytes", lambda: 10_000)
    with pytest.raises(gs.ConfigError, match=r"100 rows and \d+ columns takes .* sweep_to_parquet writes it in parts"):
        gs.sweep("gpt-2", "l4", batch=list(range(1, 101)))
    assert len(gs.sweep("gpt-2", "l4", batch=[1, 2])) == 2
    monkeypatch.setattr(room, "free_bytes", lambda: None)  # where nobody says how much memory there is
    assert len(gs.sweep("gpt-2", "l4", batch=list(range(1, 101)))) == 100


def test_the_command_line_says_it_too(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(room, "free_bytes", lambda: 100)
    assert main(["sweep", "gpt-2", "--hardware", "l4", "--batch", "1,2,4"]) == 2
    assert "sweep_to_parquet" in capsys.readouterr().err


def test_free_memory_is_that_of_a_machine() -> None:
    free = room.free_bytes()
    assert free is None or 2**20 < free < 2**50
