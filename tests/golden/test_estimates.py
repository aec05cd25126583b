"""Estimates of random deployments are what they were; whoever moves one says why, and renews the file."""

from __future__ import annotations

import json

import pytest

from tests.golden.scenarios import covering, differences, priced, scenarios
from tests.paths import GOLDEN

FILE = GOLDEN / "estimates.json"
EVERY = 12
"""Of so many, one is priced in a plain run of the tests."""


def numbers() -> list[object]:
    """Those that hold each pair of two values that the whole file holds; `tests.golden.scenarios` compares all."""
    slow = pytest.mark.slow
    covered = covering(scenarios())
    return [n if place % EVERY == 0 else pytest.param(n, marks=slow) for place, n in enumerate(covered)]


@pytest.fixture(scope="module")
def kept() -> list[dict[str, dict[str, object]]]:
    found: list[dict[str, dict[str, object]]] = json.loads(FILE.read_text(encoding="utf-8"))
    return found


def test_the_file_holds_the_scenarios_that_are_drawn(kept: list[dict[str, dict[str, object]]]) -> None:
    assert [entry["scenario"] for entry in kept] == scenarios()


@pytest.mark.parametrize("number", numbers())
def test_an_estimate_is_what_it_was(number: int, kept: list[dict[str, dict[str, object]]]) -> None:
    entry = kept[number]
    assert not differences(entry["found"], priced(entry["scenario"]))
