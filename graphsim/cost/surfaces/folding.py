"""The same sum with fewer tables: evaluated at fixed coordinates, and merged over equal or subset coordinates.

A piecewise linear function is unchanged on additional knots, so tables over one coordinate may have different knots.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from graphsim.cost.surfaces.tables import Array, Term, place, under


def folded(terms: Iterable[Term], fixed: Mapping[str, float], names: Mapping[str, str]) -> list[Term]:
    """Tables over `names` of the coordinates that are not `fixed`; their sum is that of `terms` up to rounding.

    Coordinates that always have one value share a name, unless a table has two of them.
    """
    left = [under(term, fixed) for term in terms]
    left = [replace(term, axes=tuple([names[axis] for axis in term.axes])) for term in left]
    knots = _all_knots(left)
    found: list[Term] = []
    for term in sorted(left, key=lambda term: -len(term.axes)):
        fine = _refined(term, knots)
        home = next((at for at, other in enumerate(found) if set(fine.axes) <= set(other.axes)), None)
        if home is None:
            found.append(fine)
        else:
            found[home] = replace(found[home], values=found[home].values + _spread(fine, found[home].axes))
    return found


def _all_knots(terms: Sequence[Term]) -> dict[str, Array]:
    knots: dict[str, Array] = {}
    for term in terms:
        for name, axis in zip(term.axes, term.knots, strict=True):
            knots[name] = _union(knots.get(name, axis), axis)
    return knots


def _union(one: Array, other: Array) -> Array:
    """As `np.union1d`, which imports `numpy.ma` at its first call, a tenth of a command's start-up time."""
    values = np.sort(np.concatenate([one, other]))
    different: Array = values[np.append(True, values[1:] != values[:-1])]
    return different


def _refined(term: Term, knots: Mapping[str, Array]) -> Term:
    """The same table on all knots of its coordinates."""
    values = term.values
    for at, (name, axis) in enumerate(zip(term.axes, term.knots, strict=True)):
        if len(knots[name]) > len(axis):
            left, way = place(knots[name], axis)
            shape = [-1 if other == at else 1 for other in range(values.ndim)]
            low = values.take(left, at)
            values = low + (values.take(left + 1, at) - low) * way.reshape(shape)
    return Term(axes=term.axes, knots=tuple(knots[name] for name in term.axes), values=values)


def _spread(term: Term, axes: Sequence[str]) -> Array:
    """Values with additional axes, for addition."""
    values = term.values.transpose([term.axes.index(name) for name in axes if name in term.axes])
    lengths = iter(values.shape)
    return values.reshape([next(lengths) if name in term.axes else 1 for name in axes])
