"""Sums in normal form, as steps of a program: constant + sum of weight · operand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


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
    """The same sum, terms of one group first: so that few additions run in the full shape."""

    def __init__(self, constant: float, weights: Sequence[float], groups: Sequence[Sequence[int]]) -> None:
        self.constant, self.weights, self.groups = constant, weights, groups

    def __call__(self, *operands: Any) -> Any:
        """The sum; weights of 1 and -1, the most common ones, and a constant of 0 need no multiplication or
        addition.
        """
        value: Any = self.constant
        for first, *others in self.groups:
            part = _weighted(self.weights[first], operands[first])
            for i in others:
                weight = self.weights[i]
                part = part - operands[i] if weight == -1.0 else part + _weighted(weight, operands[i])
            value = part if type(value) is float and value == 0.0 else part + value
        return value


def with_known_terms(total: Weighted | Grouped, known: Sequence[Any]) -> tuple[Weighted | Grouped, list[int]]:
    """A sum with its known terms folded into the constant, and the positions of its other operands.

    known: the value of each operand, None if unknown
    """
    left = [i for i, value in enumerate(known) if value is None]
    constant: float = total.constant
    for weight, value in zip(total.weights, known, strict=True):
        constant = constant if value is None else constant + weight * value
    weights = [total.weights[i] for i in left]
    if isinstance(total, Weighted):
        return Weighted(constant, weights), left
    place = {i: at for at, i in enumerate(left)}
    groups = [[place[i] for i in group if i in place] for group in total.groups]
    return Grouped(constant, weights, [group for group in groups if group]), left


def _weighted(weight: float, value: Any) -> Any:
    return value if weight == 1.0 else weight * value
