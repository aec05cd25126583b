"""Fitting surfaces and constants to measurements, by absolute deviations, which are robust to outliers.

Surfaces are P-splines of degree one (Eilers and Marx, Statistical Science 11(2), 1996), fitted by iteratively
reweighted least squares: with numpy only, in seconds, and deterministically.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from graphsim.cost.surfaces.surface import Surface
from graphsim.cost.surfaces.tables import Array, Term, corners, place

Indices = npt.NDArray[np.intp]


@dataclass(frozen=True, slots=True, kw_only=True)
class SurfaceSpec:
    """What to fit: knots of each coordinate, and the coordinates of each term.

    smooth: weight of squared second differences, relative to one measurement
    ridge: weight of the squared values, so that an unmeasured corner stays near the skeleton
    flat: weight of squared first differences, so that extrapolation is flat rather than a continued slope
    slopes: whether second differences are those of slopes, so that a straight line over uneven knots counts as smooth;
        otherwise, close knots may represent a step
    """

    knots: Mapping[str, Sequence[float]]
    terms: Sequence[tuple[str, ...]]
    smooth: float = 0.3
    ridge: float = 0.003
    flat: float = 0.0
    slopes: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """Pairs of points of which the second must not be faster: surface(high) - surface(low) >= least.

    least: minus the growth of the skeleton, log(skeleton(low) / skeleton(high))
    weight: of a violated pair, relative to one measurement
    """

    low: Mapping[str, Array]
    high: Mapping[str, Array]
    least: Array
    weight: float = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Weighed:
    """Measurements as a least-squares problem: the cells of each, their shares, its value and weight."""

    rows: Indices
    design: Array
    target: Array
    weights: Array


_MARGIN = 0.01
"""Pairs this close to violation stay active, to avoid oscillation between rounds."""


def fit_surface(
    layout: SurfaceSpec,
    coordinates: Mapping[str, Array],
    target: Array,
    *,
    weights: Array | None = None,
    order: Order | None = None,
    rounds: int = 12,
) -> Surface:
    """The surface nearest to `target` (log measured over skeleton) by absolute deviations.

    Solves sum w |target - surface| + smooth·|second differences|² + ridge·|values|² by
    reweighting; `rounds` of 1 gives plain least squares. Pairs of `order` that the last round violated, or nearly so,
    are added to the next one as measurements of zero growth.
    """
    knots = {name: _measured(np.asarray(x, dtype=float), coordinates.get(name)) for name, x in layout.knots.items()}
    shapes = [tuple(len(knots[name]) for name in term) for term in layout.terms]
    offsets = np.concatenate([[0], np.cumsum([int(np.prod(shape)) for shape in shapes])])
    size = int(offsets[-1])
    rows, design = _design(layout, knots, offsets, coordinates, target.shape)
    penalty = _penalty(knots, shapes, offsets, layout)
    pairs = _pairs(layout, knots, offsets, order) if order else None
    base = np.ones(target.shape) if weights is None else np.asarray(weights, dtype=float)
    solution: Array = np.zeros(size)
    w: Array = base
    for number in range(rounds):
        parts = [_Weighed(rows=rows, design=design, target=target, weights=w)]
        if order and pairs and number:
            broken = (solution[pairs[0]] * pairs[1]).sum(axis=1) < order.least + _MARGIN
            push = np.full(int(broken.sum()), order.weight)
            cells, shares = pairs[0][broken], pairs[1][broken]
            parts.append(_Weighed(rows=cells, design=shares, target=order.least[broken], weights=push))
        matrix, right = _normal_equations(parts, size)
        matrix += penalty
        solution = np.asarray(np.linalg.solve(matrix, right), dtype=float)
        residual = np.abs(target - (solution[rows] * design).sum(axis=1))
        w = base * 0.05 / np.maximum(residual, 0.01)
    return Surface(
        terms=tuple(
            Term(axes=tuple(term), knots=tuple(knots[n] for n in term), values=solution[a:b].reshape(shape))
            for term, shape, a, b in zip(layout.terms, shapes, offsets[:-1], offsets[1:], strict=True)
        )
    )


def _measured(knots: Array, points: Array | None) -> Array:
    """The knots within the range of the points, to avoid extrapolation; at least two."""
    if points is None or not points.size:
        return knots
    first = min(int(np.searchsorted(knots, points.min(), side="right")) - 1, len(knots) - 2)
    last = max(int(np.searchsorted(knots, points.max(), side="left")), first + 1, 1)
    return knots[max(first, 0) : last + 1]


def _design(
    layout: SurfaceSpec,
    knots: Mapping[str, Array],
    offsets: Indices,
    coordinates: Mapping[str, Array],
    shape: tuple[int, ...],
) -> tuple[Indices, Array]:
    """For each point, the cells that its value is interpolated from, and their weights."""
    index, value = [], []
    for term, offset in zip(layout.terms, offsets[:-1], strict=True):
        axes = [knots[name] for name in term]
        for cell, share in corners(axes, [place(coordinates[n], x) for n, x in zip(term, axes, strict=True)]):
            index.append(np.broadcast_to(cell + offset, shape))
            value.append(np.broadcast_to(share, shape))
    return np.stack(index, axis=1), np.stack(value, axis=1)


def _pairs(layout: SurfaceSpec, knots: Mapping[str, Array], offsets: Indices, order: Order) -> tuple[Indices, Array]:
    low = _design(layout, knots, offsets, order.low, order.least.shape)
    high = _design(layout, knots, offsets, order.high, order.least.shape)
    return np.concatenate([high[0], low[0]], axis=1), np.concatenate([high[1], -low[1]], axis=1)


def _normal_equations(parts: Iterable[_Weighed], size: int) -> tuple[Array, Array]:
    """Both sides of the normal equations, from the few cells that each measurement touches."""
    upper: Array = np.zeros(size * size)
    right: Array = np.zeros(size)
    for part in parts:
        rows, weighted = part.rows, part.design * part.weights[:, None]
        np.add.at(right, rows.ravel(), (weighted * part.target[:, None]).ravel())
        np.add.at(upper, (rows * (size + 1)).ravel(), (0.5 * weighted * part.design).ravel())
        for column in range(rows.shape[1] - 1):
            beside = slice(column + 1, None)
            cells = rows[:, column, None] * size + rows[:, beside]
            np.add.at(upper, cells.ravel(), (weighted[:, column, None] * part.design[:, beside]).ravel())
    square = upper.reshape(size, size)
    return square + square.T, right


def _penalty(
    knots: Mapping[str, Array], shapes: Sequence[tuple[int, ...]], offsets: Indices, layout: SurfaceSpec
) -> Array:
    """Squared first and second differences along every axis of every term, and a ridge."""
    size = int(offsets[-1])
    matrix = np.eye(size) * layout.ridge
    for term, shape, start in zip(layout.terms, shapes, offsets[:-1], strict=True):
        cells = np.arange(int(np.prod(shape))).reshape(shape) + start
        for axis, name in enumerate(term):
            line = np.moveaxis(cells, axis, -1).reshape(-1, shape[axis])
            for first, weight, stencil in _stencils(knots[name], layout):
                few = line[:, first : first + len(stencil)]
                for (i, x), (j, y) in itertools.product(enumerate(stencil), repeat=2):
                    matrix[few[:, i], few[:, j]] += weight * x * y
    return matrix


def _stencils(knots: Array, layout: SurfaceSpec) -> Iterator[tuple[int, float, tuple[float, ...]]]:
    """The penalised differences along an axis: the first knot of each difference, its weight, and its coefficients."""
    gaps = np.diff(knots) if layout.slopes else np.ones(len(knots) - 1)
    for first in range(len(gaps)):
        yield first, layout.flat, (1.0, -1.0)
    for first, (left, right) in enumerate(itertools.pairwise(1.0 / gaps)):
        mean_gap = 0.5 * (1.0 / left + 1.0 / right)
        yield first, layout.smooth * mean_gap, (left, -left - right, right)


def fit_constants(
    model: Callable[[Mapping[str, float]], Array],
    start: Mapping[str, float],
    target: Array,
    *,
    hold: float = 0.01,
    rounds: int = 30,
) -> dict[str, float]:
    """Positive constants of a skeleton such that log(model) comes nearest to `target`, robustly.

    Levenberg-Marquardt on the logarithms of the constants with numeric derivatives and absolute
    deviations; `hold` pulls each towards its start, so that a constant that the data do not determine stays there.
    """
    names, origin = list(start), np.log([start[name] for name in start])

    def residual(point: Array) -> Array:
        return np.asarray(target - np.log(model(dict(zip(names, np.exp(point), strict=True)))))

    def loss(point: Array, values: Array) -> float:
        return float(np.abs(values).mean() + hold * ((point - origin) ** 2).mean())

    point, damping = origin.copy(), 1e-2
    values = residual(point)
    best = loss(point, values)
    for _ in range(rounds):
        slope = np.stack([(residual(point + 1e-3 * e) - values) / 1e-3 for e in np.eye(len(names))], axis=1)
        w = 1.0 / np.maximum(np.abs(values), 0.01) / len(values)
        matrix = (slope * w[:, None]).T @ slope + 2 * hold / len(names) * np.eye(len(names))
        right = -(slope * w[:, None]).T @ values - 2 * hold / len(names) * (point - origin)
        before = best
        for _ in range(6):
            scale = damping * np.diag(np.diag(matrix) + 1e-9)
            trial = point + np.clip(np.linalg.solve(matrix + scale, right), -1.0, 1.0)
            found = residual(trial)
            if loss(trial, found) < best:
                point, values, best, damping = trial, found, loss(trial, found), damping * 0.3
                break
            damping *= 4.0
        if before - best < 1e-6:
            break
    return {name: float(f"{x:.5g}") for name, x in zip(names, np.exp(point), strict=True)}
