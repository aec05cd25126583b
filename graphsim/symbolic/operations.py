"""The closed set of operations that a formula may hold, each with its meaning and how it is printed.

Every recorded operation is one of these, a sum in normal form, a look-up in a table (`tables.py`), or a call of a
recorded function (`kernel.py`); anything else is refused where it is recorded. Two printers write formulas out:
Python's for single numbers (`python.py`), and JavaScript's for pages (`javascript.py`), which name an operand once
each.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

Function = Callable[..., Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """An elementwise function.

    array: of numpy, on arrays
    number: the same function for single numbers, an order of magnitude faster
    python, javascript: templates, with {0}, {1}, … for its operands; {f} stands for `number`, where Python's
        own operator would raise an exception
    exact: whether number and array agree to the last bit
    """

    array: Function
    number: Function
    python: str
    javascript: str
    exact: bool = True


def divide(x: float, y: float) -> float:
    """x / y, infinite or not a number where y is zero."""
    try:
        return x / y
    except ZeroDivisionError:
        return math.nan if x == 0 or math.isnan(x) else math.copysign(math.inf, x) * math.copysign(1.0, y)


def _choose(condition: Any, x: Any, y: Any) -> Any:
    return x if condition else y


def _both(x: Any, y: Any) -> bool:
    return bool(x and y)


def _either(x: Any, y: Any) -> bool:
    return bool(x or y)


def _log2(x: float) -> float:
    return math.log2(x) if x > 0 else -math.inf if x == 0 else math.nan


def _log1p(x: float) -> float:
    return math.log1p(x) if x > -1.0 else float(np.log1p(x))


def _exp(x: float) -> float:
    return math.exp(x) if x < 700.0 else float(np.exp(x))


def _expm1(x: float) -> float:
    return math.expm1(x) if x < 700.0 else float(np.expm1(x))


def _power(x: float, y: float) -> float:
    try:
        found = x**y
    except (OverflowError, ZeroDivisionError):
        return float(np.power(x, y))
    return found if isinstance(found, float) else math.nan


def _sqrt(x: float) -> float:
    return math.sqrt(x) if x >= 0 else math.nan


def _whole(function: Callable[[float], int]) -> Callable[[float], float]:
    return lambda x: function(x) if math.isfinite(x) else x


def _mod(x: float, y: float) -> float:
    return x % y if y else math.nan


def _floor_divide(x: float, y: float) -> float:
    return x // y if y else divide(x, y)


def _infix(array: Function, number: Function, sign: str, javascript: str = "") -> Operation:
    return Operation(
        array=array, number=number, python=f"{{0}} {sign} {{1}}", javascript=f"({{0}} {javascript or sign} {{1}})"
    )


def _call(array: Function, number: Function, python: str, name: str, *, exact: bool = True) -> Operation:
    return Operation(array=array, number=number, python=python, javascript=f"Math.{name}({{0}})", exact=exact)


OPERATIONS: dict[Function, Operation] = {
    operation.array: operation
    for operation in (
        _infix(np.add, operator.add, "+"),
        _infix(np.subtract, operator.sub, "-"),
        _infix(np.multiply, operator.mul, "*"),
        Operation(
            array=np.true_divide, number=divide, python="{0} / {1} if {1} else {f}({0}, {1})", javascript="({0} / {1})"
        ),
        _infix(np.less, operator.lt, "<"),
        _infix(np.less_equal, operator.le, "<="),
        _infix(np.greater, operator.gt, ">"),
        _infix(np.greater_equal, operator.ge, ">="),
        _infix(np.equal, operator.eq, "==", "==="),
        _infix(np.not_equal, operator.ne, "!=", "!=="),
        Operation(
            array=np.logical_and, number=_both, python="True if {0} and {1} else False", javascript="({0} && {1})"
        ),
        Operation(
            array=np.logical_or, number=_either, python="True if {0} or {1} else False", javascript="({0} || {1})"
        ),
        Operation(
            array=np.maximum, number=max, python="{1} if {1} > {0} else {0}", javascript="max({0}, {1})"
        ),
        Operation(
            array=np.minimum, number=min, python="{1} if {1} < {0} else {0}", javascript="min({0}, {1})"
        ),
        Operation(array=np.where, number=_choose, python="{1} if {0} else {2}", javascript="({0} ? {1} : {2})"),
        _call(np.ceil, _whole(math.ceil), "ceil({0}) if -1e300 < {0} < 1e300 else {f}({0})", "ceil"),
        _call(np.floor, _whole(math.floor), "floor({0}) if -1e300 < {0} < 1e300 else {f}({0})", "floor"),
        _call(np.absolute, abs, "abs({0})", "abs"),
        _call(np.sqrt, _sqrt, "sqrt({0}) if {0} >= 0.0 else {f}({0})", "sqrt"),
        _call(np.cbrt, math.cbrt, "{f}({0})", "cbrt", exact=False),
        _call(np.log2, _log2, "log2({0}) if {0} > 0.0 else {f}({0})", "log2", exact=False),
        _call(np.log1p, _log1p, "{f}({0})", "log1p", exact=False),
        _call(np.exp, _exp, "exp({0}) if {0} < 700.0 else {f}({0})", "exp", exact=False),
        _call(np.expm1, _expm1, "{f}({0})", "expm1", exact=False),
        Operation(
            array=np.power, number=_power, javascript="Math.pow({0}, {1})", exact=False,
            python="{0} ** {1} if 1e-20 < {0} < 1e20 and -15.0 <= {1} <= 15.0 else {f}({0}, {1})",
        ),
        Operation(
            array=np.mod, number=_mod, python="{f}({0}, {1})", javascript="mod({0}, {1})"
        ),
        Operation(
            array=np.floor_divide, number=_floor_divide, python="{f}({0}, {1})", javascript="Math.floor({0} / {1})"
        ),
    )
}  # fmt: skip
"""The operations by numpy function."""

SAME: dict[Function, Function] = {np.bitwise_and: np.logical_and, np.bitwise_or: np.logical_or}
"""Functions that equal another operation on booleans."""


def of_number(function: Function) -> Function:
    """The counterpart for single numbers of an operation; other functions work on both."""
    operation = OPERATIONS.get(function)
    return function if operation is None else operation.number


def exact_of_number(function: Function) -> Function:
    """The same where it agrees with numpy within an array to the last bit; else numpy's own."""
    operation = OPERATIONS.get(function)
    return operation.number if operation is not None and operation.exact else function
