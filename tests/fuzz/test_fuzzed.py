"""Whatever is done to what graphsim is given, it ends in a result or in one sentence, at a bounded cost."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from graphsim.errors import GraphError
from tests.fuzz import FUZZERS
from tests.fuzz.runner import Fuzzer, run

CHEAP = ("adapters", "traces")
"""Those of which a plain run tries some cases."""

FEW, MORE = 30, 300

DEAR = {"arguments": 60, "graphs": 90}
"""How many cases of those that simulate, or run all of the passes, are tried; `python -m tests.fuzz` tries more."""


@pytest.mark.parametrize("name", CHEAP)
def test_a_few_cases_end_well(name: str, tmp_path: Path) -> None:
    found = run(FUZZERS[name], FEW, tmp_path)
    assert not found.failed, "\n".join(found.failed)
    assert found.results + sum(found.refused.values()) == FEW


@pytest.mark.slow
@pytest.mark.parametrize("name", FUZZERS)
def test_more_cases_end_well(name: str, tmp_path: Path) -> None:
    """And some of them in a result, some in a sentence: a fuzzer that only breaks, or breaks nothing, shows little."""
    found = run(FUZZERS[name], DEAR.get(name, MORE), tmp_path, first=FEW if name in CHEAP else 0)
    assert not found.failed, "\n".join(found.failed)
    assert found.results and found.refused


@pytest.mark.parametrize(
    "broken",
    [KeyError("k"), SystemExit(1), GraphError("two\nlines of it"), GraphError("short"), AssertionError("nan")],
    ids=repr,
)
def test_a_case_that_ends_otherwise_is_told(broken: BaseException, tmp_path: Path) -> None:
    """A line break in a name is escaped by the error itself; what Python says is no sentence."""

    def case(rng: random.Random, folder: Path) -> None:
        raise broken

    found = run(Fuzzer("broken", case, lambda folder: None), 2, tmp_path)
    assert len(found.failed) == (0 if str(broken).startswith("two") else 2)
