"""Recorded formulas as straight-line programs: a list of steps over slots, for floats and for arrays."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from graphsim.symbolic.duration import Duration
from graphsim.symbolic.expr import Expr

Step = tuple[int, Callable[..., Any], tuple[int, ...]]


class Program:
    """Evaluates some formulas of a tape together; what they share is computed once.

    Inputs may be floats, or arrays that broadcast against each other: a formula is computed in the shape of the
    variables that it hangs on, so a grid given as one axis per variable costs little more than its axes.
    """

    def __init__(self, outputs: Sequence[Any]) -> None:
        self._slots: dict[int, int] = {}
        self._start: list[Any] = []
        self._inputs: list[tuple[int, str]] = []
        self._scalar: list[Step] = []
        self._array: list[Step] = []
        for node in _needed(outputs):
            self._emit(node)
        self._outputs = [self._slot(output) for output in outputs]
        self._before, self._durations, self._behind = _staged(self._scalar)

    def __call__(self, inputs: Mapping[str, Any]) -> list[Any]:
        """The outputs' values. Raises KeyError for a variable that is not given."""
        values = self._start.copy()
        plain = True
        for slot, name in self._inputs:
            value = values[slot] = inputs[name]
            plain = plain and not isinstance(value, np.ndarray)
        if not plain:
            _run(self._array, values)
        else:
            _run(self._before, values)
            self._time(values)
            _run(self._behind, values)
        return [values[slot] for slot in self._outputs]

    def _time(self, values: list[Any]) -> None:
        """All durations at once, where they know how to be timed together."""
        for together, steps in self._durations:
            asked = [(function, tuple([values[i] for i in operands])) for _, function, operands in steps]
            for (slot, _, _), seconds in zip(steps, together(asked), strict=True):
                values[slot] = seconds

    def _slot(self, operand: Any) -> int:
        if isinstance(operand, Expr) and operand.serial in self._slots:
            return self._slots[operand.serial]
        self._start.append(None if isinstance(operand, Expr) else operand)
        if isinstance(operand, Expr):
            self._slots[operand.serial] = len(self._start) - 1
        return len(self._start) - 1

    def _emit(self, node: Expr) -> None:
        operands = tuple(self._slot(operand) for operand in node.operands)
        slot = self._slot(node)
        if node.name:
            self._inputs.append((slot, node.name))
        elif node.linear is not None:
            constant, terms = node.linear
            weights = [coefficient for _, coefficient in terms]
            self._scalar.append((slot, _weighted(constant, weights), operands))
            self._array.append((slot, _grouped(constant, weights, node.operands), operands))
        elif node.function is not None:
            self._scalar.append((slot, _SCALAR.get(node.function, node.function), operands))
            self._array.append((slot, node.function, operands))


def _run(steps: Iterable[Step], values: list[Any]) -> None:
    for slot, function, operands in steps:
        if len(operands) == 2:
            values[slot] = function(values[operands[0]], values[operands[1]])
        else:
            values[slot] = function(*[values[i] for i in operands])


Together = Callable[[list[tuple[Any, Any]]], list[Any]]


def _staged(steps: list[Step]) -> tuple[list[Step], list[tuple[Together, list[Step]]], list[Step]]:
    """What comes before any duration, durations by who times them together, and all the rest.

    A duration that hangs on another one, or is timed alone, belongs to the rest.
    """
    late: set[int] = set()
    before, behind = list[Step](), list[Step]()
    durations: dict[Together, list[Step]] = {}
    for step in steps:
        slot, function, operands = step
        together = function.together if isinstance(function, Duration) else None
        if late.isdisjoint(operands) and not isinstance(function, Duration):
            before.append(step)
            continue
        if late.isdisjoint(operands) and together is not None:
            durations.setdefault(together, []).append((slot, function.function, operands))  # type: ignore[attr-defined]
        else:
            behind.append(step)
        late.add(slot)
    return before, list(durations.items()), behind


def _needed(outputs: Iterable[Any]) -> list[Expr]:
    """All formulas that the outputs hang on, operands first."""
    found: dict[int, Expr] = {}
    todo = [output for output in outputs if isinstance(output, Expr)]
    while todo:
        node = todo.pop()
        if node.serial not in found:
            found[node.serial] = node
            todo += [operand for operand in node.operands if isinstance(operand, Expr)]
    return [found[serial] for serial in sorted(found)]


def _weighted(constant: float, weights: Sequence[float]) -> Callable[..., Any]:
    if len(weights) == 1:
        (weight,) = weights
        return lambda x: constant + weight * x

    def total(*operands: Any) -> Any:
        value = constant
        for weight, operand in zip(weights, operands, strict=True):
            value += weight * operand
        return value

    return total


def _grouped(constant: float, weights: Sequence[float], operands: Sequence[Expr]) -> Callable[..., Any]:
    """Terms that hang on the same variables are added first, so few additions run in the full shape."""
    groups: dict[frozenset[str], list[int]] = {}
    for i, operand in enumerate(operands):
        groups.setdefault(operand.free, []).append(i)
    ordered = [groups[free] for free in sorted(groups, key=lambda free: (len(free), sorted(free)))]

    def total(*values: Any) -> Any:
        value: Any = constant
        for group in ordered:
            first, *others = group
            part = weights[first] * values[first]
            for i in others:
                part = part + weights[i] * values[i]
            value = part + value
        return value

    return total


def _divide(x: float, y: float) -> float:
    try:
        return x / y
    except ZeroDivisionError:
        return math.nan if x == 0 or math.isnan(x) else math.copysign(math.inf, x) * math.copysign(1.0, y)


def _log2(x: float) -> float:
    return math.log2(x) if x > 0 else -math.inf if x == 0 else math.nan


def _exp(x: float) -> float:
    return math.exp(x) if x < 700.0 else float(np.exp(x))


def _power(x: float, y: float) -> float:
    try:
        found = x**y
    except (OverflowError, ZeroDivisionError):
        return float(np.power(x, y))
    return found if isinstance(found, float) else math.nan


def _whole(function: Callable[[float], int]) -> Callable[[float], float]:
    return lambda x: function(x) if math.isfinite(x) else x


def _choose(condition: Any, x: Any, y: Any) -> Any:
    return x if condition else y


_SCALAR: dict[Callable[..., Any], Callable[..., Any]] = {
    np.add: operator.add, np.subtract: operator.sub, np.multiply: operator.mul, np.true_divide: _divide,
    np.maximum: max, np.minimum: min, np.ceil: _whole(math.ceil), np.floor: _whole(math.floor), np.where: _choose,
    np.less: operator.lt, np.less_equal: operator.le, np.greater: operator.gt, np.greater_equal: operator.ge,
    np.logical_and: lambda x, y: bool(x and y), np.logical_or: lambda x, y: bool(x or y),
    np.equal: operator.eq, np.not_equal: operator.ne, np.absolute: abs, np.log2: _log2, np.exp: _exp, np.power: _power,
    np.sqrt: lambda x: math.sqrt(x) if x >= 0 else math.nan, np.cbrt: math.cbrt,
}  # fmt: skip
"""Python's own functions where they give what numpy's give, an order of magnitude sooner."""
