"""Costly functions are asked for distinct values only, and give the same."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.testing import assert_array_equal

from graphsim.symbolic.distinct import at_distinct


def counted(asked: list[int]) -> Any:
    def function(x: Any, y: Any, z: Any) -> Any:
        result = x * 3.0 + y * y - z
        asked.append(np.size(result))
        return result

    return function


def test_arguments_on_dimensions_of_their_own_are_asked_once_per_value() -> None:
    asked: list[int] = []
    x = np.tile(np.arange(5.0), 80)[:, None, None]
    y = np.repeat(np.arange(3.0), 100)[None, None, :]
    found = at_distinct(counted(asked), (x, y, np.ones((1, 1, 1))))
    assert asked == [15]
    assert_array_equal(found, x * 3.0 + y * y - 1.0)


def test_one_array_in_two_places_stays_one() -> None:
    asked: list[int] = []
    x = np.tile(np.arange(5.0), 80).reshape(40, 10)
    assert_array_equal(at_distinct(counted(asked), (x, x, 2.0)), x * 3.0 + x * x - 2.0)
    assert asked == [5]


def test_arguments_that_share_a_dimension_are_taken_as_they_come() -> None:
    asked: list[int] = []
    x, y = np.tile(np.arange(5.0), 80), np.arange(400.0)
    assert_array_equal(at_distinct(counted(asked), (x, y, 0.0)), x * 3.0 + y * y)
    assert asked == [400]
