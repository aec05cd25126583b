"""Look-ups in tables, as operations of a formula: the cell, the relative position within it, and the interpolated
value.

A coordinate x of a table lies between two knots: `Cell` gives the number i of the one on its left, `Way` the relative
position of x up to the next one, 0 to 1, so that a table is constant beyond its knots. `Table` interpolates linearly
between the corners of the cell, along the last coordinate first. Tables with the same coordinate share its cell and
position.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from functools import lru_cache
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


class Axis:
    """The knots of a coordinate, two or more in ascending order; made by `axis_of`, once for equal knots.

    inner: all but the first and the last, which are searched; gaps: from each to the next
    """

    def __init__(self, knots: Array) -> None:
        self.knots, self.inner, self.gaps = knots, knots[1:-1], np.diff(knots)
        self.knots_list, self.inner_list, self.gaps_list = knots.tolist(), self.inner.tolist(), self.gaps.tolist()
        self.cell, self.way = Cell(self), Position(self)


def axis_of(knots: Array) -> Axis:
    """The axis over some knots."""
    return _axis(np.asarray(knots, dtype=float).tobytes())


@lru_cache(maxsize=4096)
def _axis(knots: bytes) -> Axis:
    return Axis(np.frombuffer(knots))


class Cell:
    """The number of the knot on the left of x, a whole number from 0 to the last cell's."""

    def __init__(self, axis: Axis) -> None:
        self.axis = axis

    def __call__(self, x: Any) -> Any:
        """The value at a number or an array."""
        if isinstance(x, np.ndarray):
            return self.axis.inner.searchsorted(x, "right")
        return bisect_right(self.axis.inner_list, x)


class Position:
    """The relative position of x between the knot on its left, number i, and the next one: 0 to 1."""

    def __init__(self, axis: Axis) -> None:
        self.axis = axis

    def __call__(self, x: Any, i: Any) -> Any:
        """The value at numbers or arrays."""
        if isinstance(x, np.ndarray) or isinstance(i, np.ndarray):
            way = (x - self.axis.knots.take(i)) / self.axis.gaps.take(i)
            return np.minimum(np.maximum(way, 0.0), 1.0)
        way = (x - self.axis.knots_list[i]) / self.axis.gaps_list[i]
        return 0.0 if way < 0.0 else 1.0 if way > 1.0 else way


class Table:
    """Values at the knots of some coordinates, interpolated linearly, as a function of cell and position along each.

    values: one axis for each coordinate
    """

    def __init__(self, values: Array) -> None:
        self.values = values
        self.flat_list, self.rise_list = _lists(values)
        self.strides = [prod(values.shape[at + 1 :]) for at in range(values.ndim)]

    @property
    def never_negative(self) -> bool:
        """Whether no value lies below zero."""
        return bool(self.values.min() >= 0.0)

    def __call__(self, *places: Any) -> Any:
        """The value for cell and position along the first coordinate, along the second, …"""
        cells, ways = places[::2], places[1::2]
        for place in places:
            if isinstance(place, np.ndarray):
                return self._of_arrays(list(cells), list(ways))
        base = sum([i * stride for i, stride in zip(cells, self.strides, strict=True)])
        return self._at(base, 0, ways)

    def narrowed(self, *places: Any) -> tuple[list[float], list[float]]:
        """The table over its other coordinates at a fixed cell and position of the last ones: values, and their
        differences.
        """
        values = self.values
        for i, way in zip(places[-2::-2], places[::-2], strict=True):
            low = values[..., i]
            values = low + (values[..., i + 1] - low) * way
        return _lists(values)

    def _at(self, base: int, axis: int, ways: Sequence[float]) -> float:
        """The value between the corners of a cell, from one coordinate on."""
        if axis == len(ways) - 1:
            return self.flat_list[base] + self.rise_list[base] * ways[axis]
        low, high = self._at(base, axis + 1, ways), self._at(base + self.strides[axis], axis + 1, ways)
        return low + (high - low) * ways[axis]

    def _of_arrays(self, cells: list[Any], ways: list[Any]) -> Any:
        """Interpolate last coordinates that are numbers at the knots of the others first."""
        values, strides = self.values, self.strides
        while len(cells) > 1 and not isinstance(cells[-1], np.ndarray) and not isinstance(ways[-1], np.ndarray):
            i, way = cells.pop(), ways.pop()
            low = values[..., i]
            values = low + (values[..., i + 1] - low) * way
            strides = [stride // strides[len(cells) - 1] for stride in strides[: len(cells)]]
        base = cells[-1]
        for i, stride in zip(cells[:-1], strides, strict=False):
            base = base + i * stride
        return _between(values.ravel(), _rise(values).ravel(), base, strides, ways)


def _rise(values: Array) -> Array:
    """The difference of each value to the next one along the last axis."""
    return np.diff(values, append=values[..., -1:])


def _lists(values: Array) -> tuple[list[float], list[float]]:
    return values.ravel().tolist(), _rise(values).ravel().tolist()


def _between(values: Array, rise: Array, base: Any, strides: Sequence[int], ways: Sequence[Any]) -> Any:
    if len(ways) == 1:
        return values.take(base) + rise.take(base) * ways[0]
    low = _between(values, rise, base, strides[1:], ways[1:])
    high = _between(values, rise, base + strides[0], strides[1:], ways[1:])
    return low + (high - low) * ways[0]


class Interpolation:
    """numpy.interp over fixed knots, as a function of the place alone; equal ones are one operation."""

    def __init__(self, knots: Any, values: Any, left: float | None = None, right: float | None = None) -> None:
        self.knots, self.values = np.array(knots, dtype=float), np.array(values, dtype=float)
        self.left, self.right = left, right
        self._key = (self.knots.tobytes(), self.values.tobytes(), left, right)
        outside = [end for end in (left, right) if end is not None]
        self.never_negative = bool(self.values.min(initial=np.inf) >= 0.0) and all(end >= 0.0 for end in outside)

    def __call__(self, x: Any) -> Any:
        """The value at x: a float at a number, an array at an array."""
        found = np.interp(x, self.knots, self.values, left=self.left, right=self.right)
        return found if isinstance(found, np.ndarray) else float(found)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Interpolation) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)
