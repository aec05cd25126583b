"""Every operation means the same to numpy, to Python's printer and to JavaScript's."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

import graphsim as gs
from graphsim.compile.formulas import Formulas
from graphsim.compile.symbols import numbers_of
from graphsim.cost.rates import rates_of
from graphsim.deployment.inference import Inference, Requests
from graphsim.symbolic.expr import Expr, NotRecordable, Tape, applied, record
from graphsim.symbolic.growing_sum import GrowingSum
from graphsim.symbolic.javascript import Script, runtime
from graphsim.symbolic.kernel import Kernel, Opaque
from graphsim.symbolic.operations import OPERATIONS
from graphsim.symbolic.program import Program
from graphsim.symbolic.python import printed
from graphsim.symbolic.tables import Table, axis_of
from tests.symbolic import javascript

needs_node = pytest.mark.skipif(javascript.NODE is None, reason="there is no node to run JavaScript")

TABLE = Table(np.random.default_rng(0).normal(size=(4, 3)))
AXES = axis_of(np.array([0.0, 1.0, 5.0, 50.0])), axis_of(np.array([-2.0, 3.0, 30.0]))
HYPOTENUSE = Kernel(("a", "b"), lambda a, b: np.sqrt(a * a + b * b) + np.interp(a, [0.0, 10.0, 20.0], [1.0, 3.0, 2.0]))
ARITY = {np.where: 3} | dict.fromkeys(
    (np.ceil, np.floor, np.absolute, np.sqrt, np.cbrt, np.log2, np.log1p, np.exp, np.expm1), 1
)

ASKING = (np.logical_and, np.logical_or)
COMPARING = (np.less, np.less_equal, np.greater, np.greater_equal, np.equal, np.not_equal)
"""What takes, and what gives, true or false."""


def looked_up(x: Any, y: Any) -> Any:
    cells = [applied(axis.cell, at) for axis, at in zip(AXES, (x, y), strict=True)]
    ways = [applied(axis.way, at, cell) for axis, at, cell in zip(AXES, (x, y), cells, strict=True)]
    return applied(TABLE, cells[0], ways[0], cells[1], ways[1])


def tame(function: Any, operands: list[Any]) -> list[Any]:
    """Operands at which an operation gives a number that is not beyond all bounds, as sizes and times do."""
    if function in (np.exp, np.expm1):
        return [np.minimum(operands[0], 5.0)]
    if function is np.power:
        return [np.absolute(operands[0]) + 0.5, np.clip(operands[1], -2.0, 2.0)]
    if function in (np.sqrt, np.log2, np.log1p, np.true_divide, np.mod, np.floor_divide):
        return [np.absolute(operand) + 0.5 for operand in operands]
    return operands


def grown(draw: random.Random, tape: Tape) -> list[Any]:
    """Formulas of random operations, each on earlier ones or on numbers."""
    found: list[Any] = [tape.variable(name) for name in "xyz"]
    while len(found) < 40:
        function = draw.choice([*OPERATIONS, looked_up, HYPOTENUSE])
        operands = [draw.choice([*found[-12:], 0.5, 3.0]) for _ in range(ARITY.get(function, 2))]  # type: ignore[call-overload]
        if not any(isinstance(operand, Expr) for operand in operands):
            continue
        if function is looked_up:
            made = looked_up(*operands)
        elif function is HYPOTENUSE:
            made = applied(HYPOTENUSE, *operands)
        elif function in ASKING:
            made = 1.0 * record(function, *[record(np.greater, operand, 1.0) if isinstance(operand, Expr) else True
                                            for operand in operands])  # fmt: skip
        elif function is np.where:
            made = np.where(record(np.less, operands[0], 2.0) if isinstance(operands[0], Expr) else True, *operands[1:])
        else:
            made = record(function, *tame(function, operands)) * (1.0 if function not in COMPARING else 2.0)
        found.append(np.clip(made, -1e3, 1e3))
    return found


def points(draw: random.Random, count: int) -> list[dict[str, float]]:
    return [{name: draw.choice([0.0, 1.0, draw.uniform(0.0, 60.0)]) for name in "xyz"} for _ in range(count)]


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("literal", [False, True])
def test_numbers_arrays_and_printed_source_agree_on_random_formulas(seed: int, literal: bool) -> None:
    draw = random.Random(seed)
    program = Program(grown(draw, Tape(literal=literal)))
    source = printed(program._steps, program._input_slots, program._start, program._outputs)
    asked = points(draw, 40)
    with np.errstate(all="ignore"):
        arrays = program({name: np.array([point[name] for point in asked]) for name in "xyz"})
        for at, point in enumerate(asked):
            alone = np.array(program(point), dtype=float)
            np.testing.assert_array_equal(np.array(source(*[point[n] for n in program.inputs]), dtype=float), alone)
            together = np.array([np.broadcast_to(value, (40,))[at] for value in arrays], dtype=float)
            np.testing.assert_allclose(together, alone, rtol=1e-9, atol=1e-9)


@needs_node
@pytest.mark.parametrize("seed", range(4))
def test_javascript_agrees_with_numpy_on_random_formulas(seed: int) -> None:
    draw = random.Random(100 + seed)
    formulas = grown(draw, Tape(literal=bool(seed % 2)))
    asked = points(draw, 40)
    with np.errstate(all="ignore"):
        expected = [[float(value) for value in Program(formulas)(point)] for point in asked]
    np.testing.assert_allclose(javascript.run(formulas, asked), expected, rtol=1e-9, atol=1e-9)


@needs_node
@pytest.mark.slow
@pytest.mark.parametrize(("model", "device"), [("llama-3.1-8b", "h100-sxm"), ("mixtral-8x7b", "l40s")])
def test_a_calibrated_deployment_is_the_same_in_javascript(model: str, device: str) -> None:
    deployment = gs.Deployment(model, device, lora=gs.LoraConfig(rank=16))
    inference = Inference(deployment=deployment, requests=Requests(batch=8, input_tokens=512, output_tokens=128))
    formulas, draw, rates = Formulas(inference, rates=True), random.Random(0), rates_of(inference.hardware)
    asked = [
        {name: float(value) for name, value in numbers_of(inference).items()}
        | {name: float(rate) * draw.choice([0.3, 1.0, 2.5]) for name, rate in rates.items()}
        | {"batch": float(draw.randrange(1, 200)), "input_tokens": float(draw.randrange(1, 9000)),
           "context": float(draw.randrange(1, 9000)), "rank": float(draw.choice([1, 8, 64])),
           "output_tokens": 5.0}
        for _ in range(50)
    ]  # fmt: skip
    steps = [formulas.first_token, formulas.step]
    expected = [[float(value) for value in Program(steps)(point)] for point in asked]
    np.testing.assert_allclose(javascript.run(steps, asked), expected, rtol=1e-12)


@needs_node
def test_sums_over_a_growing_variable_are_the_same_in_javascript() -> None:
    tape = Tape()
    x, y = tape.variable("x"), tape.variable("y")
    bent = np.maximum(np.sqrt(x * y) + np.ceil(x / 300.0), y * np.log2(x + 1.0)) + np.minimum(x, 5000.0) * y
    corrected = bent * np.exp(0.01 * looked_up(x, y)) + applied(HYPOTENUSE, x, y)
    total, script = GrowingSum(corrected, "x"), Script()
    main = script.growing(total, ["y"])
    asked = [(1.0, 1.0, 0.0), (3.3, 10.0, 20.0), (0.5, 1.0, 3000.0), (7.0, 900.0, 100_000.0)]
    sums = f"{asked_text(asked)}.map(([y, from, count]) => total(...{main}(y), {total.nodes}, from, count))"
    expected = [total({"y": y}, first, count) for y, first, count in asked]
    np.testing.assert_allclose(javascript.said(runtime(), script.text, sums), expected, rtol=1e-11)


def asked_text(asked: list[tuple[float, ...]]) -> str:
    return str([list(entry) for entry in asked])


def test_functions_that_differ_in_their_numbers_share_one_text() -> None:
    tape = Tape()
    x, script = tape.variable("x"), Script()
    first = script.function(["x"], [np.maximum(x * 3.5, 7.25)])
    assert script.function(["x"], [np.maximum(x * 3.5, 7.25)]) == first
    assert script.function(["x"], [np.maximum(x * 4.5, 8.25)]) != first
    assert script.text.count("max(") == 1
    assert all(number in script.text for number in ("3.5", "7.25", "4.5", "8.25"))


def test_a_function_of_python_alone_has_no_form_in_javascript() -> None:
    tape = Tape()
    opaque = tape.apply(Opaque(lambda x: x, "it asks"), tape.variable("x"))
    with pytest.raises(NotRecordable, match="it asks"):
        Script().function(["x"], [opaque])


def test_the_set_of_operations_is_closed_and_each_has_its_templates() -> None:
    assert len(OPERATIONS) <= 30
    for operation in OPERATIONS.values():
        assert "{0}" in operation.python and "{0}" in operation.javascript
