"""Symbols record what is done to them, and evaluate to what numpy gives."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphsim.symbolic.expr import Expr, NotRecordable, Tape
from graphsim.symbolic.kernel import Kernel, Opaque
from graphsim.symbolic.program import Program
from graphsim.symbolic.questions import alike, may_be_nonzero, most

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
    opaque, kernel = Opaque(np.hypot, "asks"), Kernel(("a", "b"), lambda a, b: np.sqrt(a * a + b * b))
    timed = [tape.apply(opaque, x, 2.0), tape.apply(kernel, x, y), tape.apply(kernel, y, np.inf)]
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
        if not isinstance(part, Expr):
            continue
        program = Program([part], {name: tape.variable(name) for name in (*often, *seldom)})
        made = program.in_stages(len(often))
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
    x, wait = tape.variable("x"), tape.apply(Opaque(lambda value: value, "asks"), tape.variable("y"))
    assert np.maximum(x, x + wait) is x + wait
    assert np.minimum(x, x + wait) is x
    signed = tape.variable("x") - tape.variable("y")
    assert isinstance(np.maximum(x, x + signed), Expr) and np.maximum(x, x + signed) is not x + signed


ASKED: list[tuple[str, Any]] = [
    ("a branch depends on a symbol", lambda x: 1.0 if x > 3.0 else 2.0),
    ("a branch depends on a symbol", lambda x: max(x, 2.0)),
    ("numpy.isfinite of a symbol", np.isfinite),
    ("numpy.sin of a symbol", np.sin),
    ("a branch depends on a symbol", lambda x: x in (1.0, 2.0)),
    ("float() of a symbol", float),
    ("float() of a symbol", math.log2),
    ("int() of a symbol", int),
    ("math.ceil() of a symbol", math.ceil),
    ("round() of a symbol", round),
    ("a loop over the parts of a symbol", list),
    ("the length of a symbol", len),
    ("an index made of a symbol", range),
    ("an array made of a symbol", np.asarray),
    ("an array made of a symbol", lambda x: np.max([x, 1.0])),
    ("numpy.any of a symbol", lambda x: np.any(x > 1.0)),
    ("numpy.all of a symbol", np.all),
    ("numpy.a?max of a symbol", np.max),
    ("numpy.a?min of a symbol", np.min),
    ("numpy.array_equal of a symbol", lambda x: np.array_equal(x, x)),
    ("numpy.allclose of a symbol", lambda x: np.allclose(1.0, x)),
    ("numpy.median of a symbol", np.median),
    ("numpy.add.reduce of a symbol", np.add.reduce),
    ("numpy.interp over knots that are symbols", lambda x: np.interp(1.0, x, [1.0])),
    (r"\.max of a symbol", lambda x: x.max()),
    (r"\.item of a symbol", lambda x: x.item()),
]
"""What a symbol says of what it is asked."""


@pytest.mark.parametrize(("said", "ask"), ASKED)
def test_a_symbol_refuses_to_answer_and_names_the_line_that_asked(said: str, ask: Any) -> None:
    with pytest.raises(NotRecordable) as caught:
        ask(Tape().variable("x"))
    assert re.fullmatch(rf"test_expr\.py:\d+: {said.replace('()', '[(][)]')}", str(caught.value))


def test_the_library_asks_symbols_by_functions_whose_answers_hold_for_all_numbers() -> None:
    x = Tape().variable("x")
    assert may_be_nonzero(x) and most(x) == np.inf and alike(x, x) and not alike(x, x + 1.0) and not alike(1.0, x)
    for value in (0.0, 3.0, np.array([0.0, 3.0]), np.zeros(2)):
        assert may_be_nonzero(value) == bool(np.any(value))
        assert most(value) == np.max(value)
        assert alike(value, value) and not alike(value, value + 1.0)


KNOTS = st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=6, unique=True).map(sorted)


@given(st.data(), KNOTS, st.sampled_from([{}, {"left": -7.0}, {"left": 1.0, "right": 2.0}]))
def test_interp_is_recorded_and_equals_numpy_to_the_last_bit(
    data: st.DataObject, knots: list[float], ends: dict[str, float]
) -> None:
    values = data.draw(st.lists(st.floats(-1e3, 1e3), min_size=len(knots), max_size=len(knots)))
    places = np.array([*knots, *data.draw(st.lists(st.floats(0.0, 2e3), min_size=1, max_size=30))])
    for literal in (False, True):
        program = Program([np.interp(Tape(literal=literal).variable("x"), knots, np.array(values), **ends)])
        expected = np.interp(places, knots, values, **ends)
        np.testing.assert_array_equal(program({"x": places})[0], expected)
        alone = program.in_stages(1)()
        for place, value in zip(places, expected, strict=True):
            assert program({"x": float(place)})[0] == value == alone(float(place))


def test_interp_over_equal_knots_is_one_formula_and_knows_its_sign() -> None:
    x = Tape().variable("x")
    assert np.interp(x, [0, 1], [0, 2]) is np.interp(x, np.array([0.0, 1.0]), [0, 2])
    assert np.interp(x, [0, 1], [0, 2]) is not np.interp(x, [0, 1], [0, 3])
    assert np.interp(x, [0, 1], [0, 2]).positive and not np.interp(x, [0, 1], [-1, 2]).positive
