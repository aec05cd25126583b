"""A sum between kinks is the plain sum, for one and for many, and its cost does not grow with its length."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from graphsim.symbolic.expr import Tape, applied
from graphsim.symbolic.growing_sum import GrowingSum
from graphsim.symbolic.kernel import Kernel, Opaque
from graphsim.symbolic.program import Program
from graphsim.symbolic.tables import Table, axis_of

AXIS = axis_of(np.array([0.0, 3.0, 5.5, 8.0, 11.0, 14.0]))
TABLE = Table(np.array([0.1, -0.2, 0.3, 0.05, 0.2, -0.1]))


def tabulated(c: Any) -> Any:
    x = np.log2(c)
    cell = applied(AXIS.cell, x)
    return np.exp(applied(TABLE, cell, applied(AXIS.way, x, cell)))


KERNEL = Kernel(("c", "b"), lambda c, b: tabulated(c) * np.cbrt(c**3.0 + (40.0 * b) ** 3.0))

FORMULAS: dict[str, Callable[[Any, Any], Any]] = {
    "a line": lambda c, b: 3.0 + b * c,
    "lines that cross": lambda c, b: np.maximum(np.maximum(2.0 * c, 900.0 + b * c), 5.0 * c - 3000.0),
    "steps": lambda c, b: np.ceil(c / 700.0) * b + c,
    "pages": lambda c, b: np.ceil(c / 16.0) * 16.0 * b,
    "a window": lambda c, b: np.minimum(c, 1000.0) * b + np.where(c > 2500.0, 70.0, 0.0),
    "a curve": lambda c, b: np.sqrt(c) * np.log2(c + b),
    "a table": lambda c, b: b * tabulated(c),
    "a kernel": lambda c, b: np.maximum(KERNEL(c, b) if not hasattr(c, "tape") else c.tape.apply(KERNEL, c, b), 60.0),
}


def growing(name: str) -> GrowingSum:
    tape = Tape()
    return GrowingSum(FORMULAS[name](tape.variable("c"), tape.variable("b")), "c")


def plain(name: str, first: float, count: float, b: float) -> float:
    return float(np.sum(FORMULAS[name](np.arange(first, first + count), b)))


@pytest.mark.parametrize("name", FORMULAS)
def test_many_sums_are_what_plain_sums_are(name: str) -> None:
    draw = np.random.default_rng(0)
    first, count = draw.integers(1, 6000, 40).astype(float), draw.integers(0, 5000, 40).astype(float)
    b = draw.integers(1, 60, 40).astype(float)
    found = growing(name)({"b": b}, first, count)
    expected = [plain(name, *at) for at in zip(first, count, b, strict=True)]
    np.testing.assert_allclose(found, expected, rtol=1e-12)


@pytest.mark.parametrize("name", FORMULAS)
def test_one_sum_is_that_of_many(name: str) -> None:
    total, many = growing(name), np.array([0.0, 1.0, 30.0, 1000.0, 1100.0, 40000.0])
    together = total({"b": 3.0}, 17.0, many)
    alone = [total({"b": 3.0}, 17.0, count) for count in many.tolist()]
    np.testing.assert_allclose(together, alone, rtol=1e-12)


@pytest.mark.parametrize("name", ["lines that cross", "a curve", "a kernel"])
def test_a_long_sum_takes_few_values(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    total, taken = growing(name), 0
    value = total.value.at

    def counted(*given: Any) -> Any:
        nonlocal taken
        taken += max([np.size(x) for x in given])
        return value(*given)

    monkeypatch.setattr(total.value, "at", counted)
    assert total({"b": 3.0}, 100.0, 1e8) > 0.0
    assert taken < 2000


def test_a_formula_that_must_see_its_numbers_is_added_up_step_by_step() -> None:
    tape, asked = Tape(), list[float]()

    def odd(c: float) -> float:
        asked.append(c)
        return 5.0 if c % 2 else 1.0

    total = GrowingSum(tape.apply(Opaque(odd, "it asks"), tape.variable("c")), "c")
    assert total({}, 10.0, 7.0) == 3 * 5.0 + 4 * 1.0
    assert total({}, np.array([10.0, 11.0]), 2.0).tolist() == [6.0, 6.0]
    assert sorted(set(asked)) == [float(c) for c in range(10, 17)]


def test_one_smooth_piece_is_added_up_from_few_values_to_rounding() -> None:
    """Of single numbers, as of arrays; where it bends or is long, all values are added up."""
    tape = Tape()
    x, y = tape.variable("x"), tape.variable("y")
    total = GrowingSum(np.sqrt(x * y) * np.log2(x + y) + np.maximum(x, 700.0) / y, "x")
    seen: list[float] = []
    number = total._number

    def counted(program: Program, level: dict[str, float], place: float) -> float:
        seen.append(place)
        return number(program, level, place)

    total._number = counted  # type: ignore[method-assign]
    for first, count, values in ((800.0, 100.0, 9), (650.0, 100.0, 2), (100.0, 900.0, 0), (800.0, 20.0, 0)):
        seen.clear()
        places = np.arange(first, first + count)
        plain = np.sum(np.sqrt(places * 3.0) * np.log2(places + 3.0) + np.maximum(places, 700.0) / 3.0)
        assert total({"y": 3.0}, first, count) == pytest.approx(plain, rel=1e-13)
        assert len(seen) == values
