"""All tables of a surface in one array, so that a few points are looked up with few calls of numpy.

Many points go table by table (`cost/tables.py`), whose intermediate results stay small.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from graphsim.cost.tables import Array, Term
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
        lengths = np.array([len(axis) for axis in axes])
        self._before = (2 * np.arange(len(axes)))[:, None]  # outer knots of earlier coordinates, which `_inner` lacks
        self._first = np.concatenate([[0], np.cumsum(lengths)[:-1]])[:, None]
        self._knots = np.concatenate(axes)
        self._gaps = np.append(np.diff(self._knots), 1.0)
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
        self._starts = np.cumsum([0, *sizes[:-1]])[:, None]
        self._values = np.concatenate([term.values.ravel() for term in terms])
        corners = np.zeros((1, len(terms), 1), dtype=np.intp)
        for stride in self._strides:
            corners = np.stack([corners, corners + stride], axis=1).reshape(-1, len(terms), 1)
        self._corners = corners

    def __call__(self, coordinates: Mapping[str, Num], shape: tuple[int, ...]) -> Array:
        """The sum of all tables at coordinates that broadcast to `shape`."""
        points = np.empty((len(self.names), *shape))
        for row, name in zip(points, self.names, strict=True):
            row[...] = coordinates[name]
        x = np.minimum(np.maximum(points.reshape(len(self.names), -1), self._low), self._high)
        place = self._inner.searchsorted(x + self._shift, side="right") + self._before
        way = (x - self._knots[place]) / self._gaps[place]
        left = place - self._first
        base = self._starts + (left[self._rows] * self._strides).sum(axis=0)
        found = self._values[base + self._corners]
        for share in reversed(way[self._rows] * self._live):
            low = found[::2]
            found = low + (found[1::2] - low) * share
        total: Array = found[0].sum(axis=0).reshape(shape)
        return total
