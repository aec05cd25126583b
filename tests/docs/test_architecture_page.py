"""The handbook's page of rooms is the house as it stands."""

from __future__ import annotations

import re
from itertools import takewhile

from tests.docs.pages import DOCS
from tests.paths import ROOT
from tests.rooms import modules_of, room_of
from tests.test_architecture import ROWS

PAGE = (DOCS / "architecture.md").read_text(encoding="utf-8")


def section(title: str) -> list[str]:
    """The lines below a heading, up to the next one."""
    lines = PAGE.split(f"\n## {title}\n", 1)[1].splitlines()
    return list(takewhile(lambda line: not line.startswith("## "), lines))


def cells(title: str) -> list[list[str]]:
    """The rows of a section's table, without its head."""
    rows = [line.strip("| ").split(" | ") for line in section(title) if line.startswith("|")]
    return rows[2:]


def test_the_rooms_of_the_page_are_those_of_the_tree_in_the_order_of_imports() -> None:
    listed = [room.strip("`") for room, _ in cells("Rooms")]
    assert sorted(listed) == sorted({room_of(module) for module in modules_of(ROOT / "graphsim")})
    assert listed == [row for row in ROWS if room_of(row) == row]


def test_every_room_has_one_sentence() -> None:
    for room, purpose in cells("Rooms"):
        assert purpose.endswith(".") and purpose.count(". ") == 0, room


def test_the_places_and_tests_that_the_page_names_are_there() -> None:
    named = re.findall(r"`((?:graphsim|tests|models|hardware)/[\w./-]*)`", PAGE)
    assert len(named) > 20
    for path in named:
        assert (ROOT / path).exists() or (ROOT / f"{path}.py").exists(), path


def test_whatever_can_be_added_has_a_test_that_speaks() -> None:
    for what, _, tests in cells("Where to add what"):
        assert "tests/" in tests, what
