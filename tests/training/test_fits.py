"""The search for the largest number that fits, which any memory that only grows answers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphsim.training.fits import CLOSE, closest, largest


@given(limit=st.integers(0, 3 * 10**6), most=st.integers(1, 2 * 10**6))
def test_the_largest_number_that_fits_is_found(limit: int, most: int) -> None:
    assert largest(lambda tried: tried <= limit, most) == min(limit, most)


@pytest.mark.parametrize(("fits", "found"), [(True, 1000), (False, 0)])
def test_memory_that_does_not_depend_on_the_number_is_one_answer_for_all(fits: bool, found: int) -> None:
    assert largest(lambda _: fits, 1000) == found


def test_few_calls_are_enough() -> None:
    calls = []

    def fits(tried: np.ndarray) -> np.ndarray:
        calls.append(len(tried))
        return tried <= 123_457

    assert largest(fits, 2**26) == 123_457
    assert len(calls) <= 6


@given(limit=st.integers(0, 10**5), high=st.integers(0, 10**5))
def test_replays_come_to_a_thousandth_from_below(limit: int, high: int) -> None:
    tried: list[int] = []

    def fits(number: int) -> bool:
        tried.append(number)
        return number <= limit

    found, true = closest(fits, high), min(limit, high)
    assert found <= true and true - found <= max(1, CLOSE * high)
    assert (found == 0) == (true == 0)
    assert len(tried) <= 40
