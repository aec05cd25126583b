"""All tables of a surface in one array, so that a few points are looked up with few calls of numpy.

Many points go table by table (`tables.py`), whose intermediate results stay small.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from graphsim.cost.surfaces.tables import Array, Term
from graphsim.units import Num

MOST_POINTS = 256
"""Points from which on one table after the other is faster."""

_APART = 2.0**10
"""Between the knots of two coordinates that share one sorted array; coordinates are logarithms of sizes."""


class Packed:
    """The tables of a surface, and their sum at up to MOST_POINTS points."""

    def __init__(self, terms: Sequence[Term]) -> None:
        self.names = list(dict.fromkeys(name for term in terms for name in term.axes))
        knots = {name: axis for term in reversed(terms) for name, axis in zip(term.axes, term.knots, strict=True)}
        axes = [knots[name] for name in self.names]
        self._low, self._high = (np.array([[axis[end]] for axis in axes]) for end in (0, -1))
        self._shift = _APART * np.arange(len(axes))[:, None]
        self._inner = np.concatenate([axis[1:-1] + _APART * i for i, axis in enumerate(axes)])
        self._cells_before = np.arange(len(axes))[:, None]  # `_inner` has one knot less than each axis has cells
        self._first = np.cumsum([0, *(len(axis) - 1 for axis in axes[:-1])])
        self._knots = np.concatenate([axis[:-1] for axis in axes])
        self._gaps = np.concatenate([np.diff(axis) for axis in axes])
        self._pack(terms)

    def _pack(self, terms: Sequence[Term]) -> None:
        """Every table with as many axes as the largest: those that it lacks have one cell."""
        most = max(term.values.ndim for term in terms)
        rows, strides = np.zeros((2, most, len(terms)), dtype=np.intp)
        for t, term in enumerate(terms):
            rows[: len(term.axes), t] = [self.names.index(name) for name in term.axes]
            strides[: len(term.axes), t] = np.cumprod((1, *term.values.shape[:0:-1]))[::-1]
        self._rows, self._strides = rows, strides[:, :, None]
        self._live = (self._strides > 0).astype(float)
        sizes = [term.values.size for term in terms]
        before = (self._first[rows] * strides).sum(axis=0)
        self._starts = (np.cumsum([0, *sizes[:-1]]) - before)[:, None]
        self._values = np.concatenate([term.values.ravel() for term in terms])
        corners = np.zeros((1, len(terms), 1), dtype=np.intp)
        for stride in self._strides:
            corners = np.stack([corners, corners + stride], axis=1).reshape(-1, len(terms), 1)
        self._corners = corners

    def __call__(self, coordinates: Sequence[Num], shape: tuple[int, ...]) -> Array:
        """The sum of all tables at coordinates, in the order of `names`, that broadcast to `shape`."""
        points = np.empty((len(coordinates), *shape))
        for row, values in zip(points, coordinates, strict=True):
            row[...] = values
        x = np.minimum(np.maximum(points.reshape(len(points), -1), self._low), self._high)
        cell = self._inner.searchsorted(x + self._shift, side="right") + self._cells_before
        way = (x - self._knots.take(cell)) / self._gaps.take(cell)
        base = np.add.reduce(cell.take(self._rows, axis=0) * self._strides) + self._starts
        found = self._values.take(base + self._corners)
        for share in reversed(way.take(self._rows, axis=0) * self._live):
            low = found[::2]
            found = low + (found[1::2] - low) * share
        total: Array = np.add.reduce(found[0]).reshape(shape)
        return total
