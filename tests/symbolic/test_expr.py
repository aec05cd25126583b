"""Symbols record what is done to them, and evaluate to what numpy gives."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphsim.symbolic.duration import Duration
from graphsim.symbolic.expr import Expr, NotRecordable, Tape
from graphsim.symbolic.program import Program

NUMBERS = st.floats(0.0, 1e6).map(lambda x: round(x, 3))


def formula(x: Any, y: Any) -> list[Any]:
    """Everything that the cost formulas use."""
    return [
        x + 2.0 * y - 3.0, x * y,
        np.maximum(x, x - y), np.minimum(2.0 * x - y, x), x / (abs(y) + 1.0), np.maximum(x, y),
        np.minimum(x - 1.0, 2.0 * y), -x,
        np.ceil(x / 7.0), np.floor((x + 3.0) / 7.0), np.where(x > y, x, 2.0 * y), (x > 0) * y, (x >= y) | (y < 0),
        np.sqrt(abs(x)), np.log2(abs(x) + 1.0), np.exp(x / 1e6), np.clip(x, 0.0, y + 2e6), x % 5.0, abs(x) ** 0.5,
        np.maximum(x + 1.0, x), np.maximum(x, -np.inf), 3.0 * (x + y) - 3.0 * x - 3.0 * y, np.greater(x, 0.0)[()],
    ]  # fmt: skip


@given(NUMBERS, NUMBERS)
def test_a_recorded_formula_gives_what_the_formula_gives(x: float, y: float) -> None:
    tape = Tape()
    program = Program(formula(tape.variable("x"), tape.variable("y")))
    found = program({"x": x, "y": y})
    np.testing.assert_allclose(np.asarray(found, dtype=float), np.asarray(formula(x, y), dtype=float), atol=1e-8)


@given(st.lists(NUMBERS, min_size=1, max_size=4), st.lists(NUMBERS, min_size=1, max_size=4))
def test_a_grid_gives_what_its_scenarios_give(xs: list[float], ys: list[float]) -> None:
    tape = Tape()
    program = Program(formula(tape.variable("x"), tape.variable("y")))
    grid = program({"x": np.array(xs)[:, None], "y": np.array(ys)[None, :]})
    for i, x in enumerate(xs):
        for j, y in enumerate(ys):
            one = [np.broadcast_to(value, (len(xs), len(ys)))[i, j] for value in grid]
            np.testing.assert_allclose(np.asarray(one, float), np.asarray(program({"x": x, "y": y}), float), atol=1e-8)


@given(st.lists(st.tuples(NUMBERS, NUMBERS), min_size=1, max_size=4))
def test_a_program_gives_the_same_to_the_last_bit_however_often_it_runs(asked: list[tuple[float, float]]) -> None:
    tape = Tape()
    x, y = tape.variable("x"), tape.variable("y")
    alone, together = Duration(np.hypot), Duration(np.hypot, lambda calls: [f(*values) for f, values in calls])
    timed = [tape.apply(alone, x, 2.0), tape.apply(together, x, y), tape.apply(together, y, np.inf)]
    program = Program([*formula(x, y), *timed, timed[1] + x / 0.0, np.float64(7.0), sum(timed)])
    first = [program({"x": a, "y": b}) for a, b in asked]
    for _ in range(40):
        program({"x": 1.0, "y": 2.0})
    again = [program({"x": a, "y": b}) for a, b in asked]
    np.testing.assert_array_equal(np.array(again, dtype=float), np.array(first, dtype=float))


@pytest.mark.parametrize("seldom", ["", "x", "y", "xy"])
def test_a_program_of_numbers_in_two_stages_gives_what_it_gives_in_one(seldom: str) -> None:
    tape = Tape(literal=True)
    x, y = tape.variable("x"), tape.variable("y")
    odd = [x / y, np.log2(x) + y, np.exp(x - 700.0) * y, np.sqrt(x - y), (x - 5.0) ** 0.5, np.ceil(x / y)]
    often = [name for name in "xy" if name not in seldom]
    for part in [*formula(x, y), *odd]:
        program = Program([part])
        made = program.of_numbers(list(seldom), often)
        for at in ({"x": a, "y": b} for a in (0.0, 3.5, 2e3) for b in (0.0, 7.0, 1e6)):
            with np.errstate(all="ignore"):
                found = made(*[at[name] for name in seldom])(*[at[name] for name in often])
                np.testing.assert_array_equal(np.array(found, dtype=float), np.array(program(at)[0], dtype=float))


def test_equal_formulas_are_one_object() -> None:
    tape = Tape()
    x, y = tape.variable("x"), tape.variable("y")
    assert x * y is y * x
    assert x + y - x is y
    assert np.maximum(x, y) is np.maximum(y, x)
    assert tape.variable("x") is x


def test_what_is_known_to_be_larger_needs_no_maximum() -> None:
    tape = Tape()
    x, wait = tape.variable("x"), tape.apply(Duration(lambda value: value), tape.variable("y"))
    assert np.maximum(x, x + wait) is x + wait
    assert np.minimum(x, x + wait) is x
    signed = tape.variable("x") - tape.variable("y")
    assert isinstance(np.maximum(x, x + signed), Expr) and np.maximum(x, x + signed) is not x + signed


@pytest.mark.parametrize("ask", [bool, float, int, list, np.asarray, lambda x: np.interp(x, [0, 1], [0, 1])])
def test_a_symbol_refuses_to_be_an_actual_number(ask: Any) -> None:
    with pytest.raises(NotRecordable):
        ask(Tape().variable("x"))
