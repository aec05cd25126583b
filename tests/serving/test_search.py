"""The search finds the end of what holds, in few trials, and says where it was not one end."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphsim.serving.search import Search, Trial, search_highest


def counted(holds: Callable[[float], bool], **more: object) -> tuple[Callable[[Sequence[float]], list[Trial]], list]:
    asked: list[list[float]] = []

    def trials(values: Sequence[float]) -> list[Trial]:
        asked.append(list(values))
        return [Trial(holds=holds(value), **more) for value in values]

    return trials, asked


@given(end=st.floats(0.02, 5e4), start=st.floats(0.1, 100.0), width=st.integers(1, 5))
def test_the_end_is_found_within_the_tolerance(end: float, start: float, width: int) -> None:
    trials, asked = counted(lambda value: value <= end)
    search = Search(start=start, least=start / 1024.0, width=width)
    found = search_highest(trials, search)
    if end < search.least:
        assert found is None and not search.is_open
        return
    assert found is not None and found <= end < found * 1.02
    assert all(len(values) <= width for values in asked)
    assert len(asked) <= 32 and len({value for values in asked for value in values}) == sum(map(len, asked))
    assert search.is_monotone


@given(end=st.integers(0, 3000), start=st.integers(1, 500), width=st.integers(1, 4))
def test_whole_numbers_are_found_exactly(end: int, start: int, width: int) -> None:
    trials, asked = counted(lambda value: value <= end)
    found = search_highest(trials, Search(start=start, least=1, most=2000, whole=True, width=width))
    assert found == (None if end < 1 else min(end, 2000))
    assert all(value == int(value) and 1 <= value <= 2000 for values in asked for value in values)


def test_a_good_guess_saves_trials() -> None:
    blind, blindly = counted(lambda value: value <= 37.0)
    told, guided = counted(lambda value: value <= 37.0, near=36.0)
    search_highest(blind, Search(start=0.5, least=0.001))
    found = search_highest(told, Search(start=0.5, least=0.001))
    assert found is not None and found <= 37.0 < found * 1.02
    assert len(guided) < len(blindly)


def test_where_nothing_fails_the_search_is_open() -> None:
    def trials(values: Sequence[float]) -> list[Trial]:
        return [Trial(holds=True, last=value > 100.0) for value in values]

    search = Search(start=1.0, least=0.001)
    found = search_highest(trials, search)
    assert found is not None and found > 100.0 and search.is_open and len(search.tried) <= 9


def test_luck_near_the_end_does_not_count() -> None:
    """It fails from 10 on, but for a stroke of luck between 10.7 and 11.3."""
    trials, _ = counted(lambda value: value <= 10.0 or 10.7 <= value <= 11.3)
    search = Search(start=11.0, least=0.01)
    found = search_highest(trials, search)
    assert found is not None and found <= 10.0 < found * 1.02
    assert not search.is_monotone


@pytest.mark.parametrize("width", [1, 3])
def test_nothing_holds(width: int) -> None:
    trials, asked = counted(lambda value: False)
    search = Search(start=8.0, least=1.0, width=width)
    assert search_highest(trials, search) is None
    assert [value for values in asked for value in values] == [8.0, 4.0, 2.0, 1.0]
