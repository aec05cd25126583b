"""Tables over one to three coordinates, interpolated linearly between their knots and held constant beyond them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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


def place(x: Num, knots: Array) -> tuple[Any, Any]:
    """Index of the knot on the left and the relative position up to the next one (0 to 1), clamped to the table."""
    left = knots[1:-1].searchsorted(x, side="right")
    start = knots[left]
    return left, np.minimum(np.maximum((x - start) / (knots[left + 1] - start), 0.0), 1.0)


def under(term: Term, fixed: Mapping[str, float]) -> Term:
    """The table over its other coordinates, with some at a fixed position."""
    others = [name for name in term.axes if name not in fixed]
    order = [term.axes.index(name) for name in (*others, *(name for name in term.axes if name in fixed))]
    values = term.values.transpose(order)
    for at in reversed(order[len(others) :]):
        left, way = place(fixed[term.axes[at]], term.knots[at])
        low = values[..., left]
        values = low + (values[..., left + 1] - low) * way
    return Term(axes=tuple(others), knots=tuple(term.knots[at] for at in order[: len(others)]), values=values)


def corners(knots: Sequence[Array], places: Sequence[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
    """Flat index and weight of each corner of the cell that holds the point."""
    corners: list[tuple[Any, Any]] = [(0, 1.0)]
    for axis, (left, way) in zip(knots, places, strict=True):
        sides = ((left, 1.0 - way), (left + 1, way))
        corners = [(index * len(axis) + side, weight * share) for index, weight in corners for side, share in sides]
    return corners
