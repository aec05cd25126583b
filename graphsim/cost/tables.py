"""Tables over one to three coordinates, interpolated linearly between their knots and held constant beyond them."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from graphsim.units import Num

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Term:
    """One table of a surface: `values` has one axis per coordinate named in `axes`."""

    axes: tuple[str, ...]
    knots: tuple[Array, ...]
    values: Array
    plain_knots: tuple[list[float], ...] = field(init=False, repr=False, compare=False)
    plain_values: list[float] = field(init=False, repr=False, compare=False)
    offsets: list[int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Keep the table as plain numbers too, which single points are looked up in sooner.

        offsets: of a cell's corners in the flat table, from its first one
        """
        object.__setattr__(self, "offsets", _offsets(self.values.shape))
        object.__setattr__(self, "plain_knots", tuple(knots.tolist() for knots in self.knots))
        object.__setattr__(self, "plain_values", self.values.ravel().tolist())


def _offsets(shape: Sequence[int]) -> list[int]:
    """Of a cell's corners in a flat table, from its first one."""
    offsets = [0]
    for length in shape:
        offsets = [offset * length + side for offset in offsets for side in (0, 1)]
    return offsets


def place(x: Num, knots: Array) -> tuple[Any, Any]:
    """Index of the knot on the left and the way to the next one (0 to 1), clamped to the table."""
    left = knots[1:-1].searchsorted(x, side="right")
    start = knots[left]
    return left, np.minimum(np.maximum((x - start) / (knots[left + 1] - start), 0.0), 1.0)


def between(term: Term, places: Sequence[tuple[Any, Any]]) -> Num:
    """The table between its knots: along the last axis first, then along the one before, …

    Last axes along which all points lie at one place are gone through at the knots of the others.
    """
    values, offsets, places = term.values, term.offsets, list(places)
    while len(places) > 1 and not np.ndim(places[-1][0]):
        left, way = places.pop()
        low = values[..., left]
        values = low + (values[..., left + 1] - low) * way
        offsets = _offsets(values.shape)
    base: Any = 0
    for length, (left, _) in zip(values.shape, places, strict=True):
        base = base * length + left
    flat = values.ravel()
    corners = [flat[base + offset] for offset in offsets]
    for _, way in reversed(places):
        corners = [low + (high - low) * way for low, high in zip(corners[::2], corners[1::2], strict=True)]
    between: Num = corners[0]
    return between


def place_one(x: float, knots: list[float]) -> tuple[int, float]:
    """As `place`, of one number."""
    left = bisect_right(knots, x, 1, len(knots) - 1) - 1
    start = knots[left]
    return left, min(max((x - start) / (knots[left + 1] - start), 0.0), 1.0)


def between_one(term: Term, places: Sequence[tuple[int, float]]) -> float:
    """As `between`, of one point."""
    base = 0
    for knots, (left, _) in zip(term.plain_knots, places, strict=True):
        base = base * len(knots) + left
    values = term.plain_values
    corners = [values[base + offset] for offset in term.offsets]
    for _, way in reversed(places):
        corners = [low + (high - low) * way for low, high in zip(corners[::2], corners[1::2], strict=True)]
    return corners[0]


def corners(knots: Sequence[Array], places: Sequence[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
    """Flat index and weight of each corner of the cell that holds the point."""
    corners: list[tuple[Any, Any]] = [(0, 1.0)]
    for axis, (left, way) in zip(knots, places, strict=True):
        sides = ((left, 1.0 - way), (left + 1, way))
        corners = [(index * len(axis) + side, weight * share) for index, weight in corners for side, share in sides]
    return corners
