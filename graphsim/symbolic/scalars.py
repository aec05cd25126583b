"""Elementwise functions of numpy on single numbers: the same values, an order of magnitude faster."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np


class Weighted:
    """constant + sum of weight · operand, from left to right."""

    def __init__(self, constant: float, weights: Sequence[float]) -> None:
        self.constant, self.weights = constant, weights

    def __call__(self, *operands: Any) -> Any:
        """The sum."""
        value = self.constant
        for weight, operand in zip(self.weights, operands, strict=True):
            value += weight * operand
        return value


class Grouped:
    """The same sum, terms of one group first: where groups vary alike, few additions run in the full shape."""

    def __init__(self, constant: float, weights: Sequence[float], groups: Sequence[Sequence[int]]) -> None:
        self.constant, self.weights, self.groups = constant, weights, groups

    def __call__(self, *operands: Any) -> Any:
        """The sum; weights of 1 and -1, of which most are, and a constant of 0 take no multiplication or addition."""
        value: Any = self.constant
        for first, *others in self.groups:
            part = _weighted(self.weights[first], operands[first])
            for i in others:
                weight = self.weights[i]
                part = part - operands[i] if weight == -1.0 else part + _weighted(weight, operands[i])
            value = part if type(value) is float and value == 0.0 else part + value
        return value


def _weighted(weight: float, value: Any) -> Any:
    return value if weight == 1.0 else weight * value


def divide(x: float, y: float) -> float:
    """x / y, infinite or not a number where y is zero."""
    try:
        return x / y
    except ZeroDivisionError:
        return math.nan if x == 0 or math.isnan(x) else math.copysign(math.inf, x) * math.copysign(1.0, y)


def choose(condition: Any, x: Any, y: Any) -> Any:
    """One of two values, as numpy.where."""
    return x if condition else y


def both(x: Any, y: Any) -> bool:
    """Logical and."""
    return bool(x and y)


def either(x: Any, y: Any) -> bool:
    """Logical or."""
    return bool(x or y)


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


def _sqrt(x: float) -> float:
    return math.sqrt(x) if x >= 0 else math.nan


def _whole(function: Callable[[float], int]) -> Callable[[float], float]:
    return lambda x: function(x) if math.isfinite(x) else x


SCALAR: dict[Callable[..., Any], Callable[..., Any]] = {
    np.add: operator.add, np.subtract: operator.sub, np.multiply: operator.mul, np.true_divide: divide,
    np.maximum: max, np.minimum: min, np.ceil: _whole(math.ceil), np.floor: _whole(math.floor), np.where: choose,
    np.less: operator.lt, np.less_equal: operator.le, np.greater: operator.gt, np.greater_equal: operator.ge,
    np.logical_and: both, np.logical_or: either, np.equal: operator.eq, np.not_equal: operator.ne,
    np.absolute: abs, np.log2: _log2, np.exp: _exp, np.power: _power, np.sqrt: _sqrt, np.cbrt: math.cbrt,
}  # fmt: skip
"""Each function's counterpart for numbers."""

_ROUNDED_APART = {np.log2, np.exp, np.power, np.cbrt}

EXACT = {function: number for function, number in SCALAR.items() if function not in _ROUNDED_APART}
"""Those that give the same last bit as numpy's within an array."""
