"""The errors that a calibration stores: residuals of shapes that the fit has not seen, as a few quantiles."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from graphsim.calibration.held_out import FOLDS, held_out
from graphsim.cost.families.registry import Family
from graphsim.cost.kernel_intervals import interval_us, shapes_of
from graphsim.cost.residuals import (
    ALL,
    CLASSES,
    HOSTED,
    PROBABILITIES,
    beyond_cells,
    cells_text,
    class_of,
    kind_of,
    octaves,
    sizes_of,
)
from graphsim.cost.surfaces.tables import Array

if TYPE_CHECKING:
    import pandas as pd

Apart = Callable[[Any], float]
"""The number of independent errors among the rows of a mask."""

FEWEST = 40
"""Number of rows from which a kind or a class has its own quantiles: four lie beyond each end of the default
interval.
"""

FEWEST_FAR = 40
"""Number of rows away from the measurements that determine how residuals grow with distance."""


def residual_record(rows: pd.DataFrame, unseen_us: Array, family: Family) -> dict[str, Any]:
    """The residual record of a family (`cost/residuals.py`); empty if no row was predicted unseen.

    rows: measured kernels in the reference schema
    unseen_us: the estimate of each by a fit that has not seen its
        shape (`predicted_unseen`), nan if there is none
    """
    rows, unseen_us, residual = known(rows, unseen_us)
    if rows.empty:
        return {}
    if family.composed:  # for families fitted to whole blocks, errors are correlated with those of their kernels
        every = quantiles_of(residual, float(len(rows)))
        return {"rows": len(rows), "quantiles": {ALL: {ALL: every}}, "ranges": {}}
    kinds, sizes = described(rows, family)
    layout = [name for name in sizes if name in family.layout]
    far = _far(rows, sizes, layout, family)
    growth = _growth(residual, far)
    record: dict[str, Any] = {
        "rows": len(rows),
        "quantiles": quantiles(residual / (1.0 + growth * far), kinds, unseen_us, shapes_apart(rows, family)),
        "ranges": {
            name: [round(float(end), 2) for end in (value.min(), value.max())]
            for name, value in sizes.items()
            if name not in layout
        },
    }
    if layout:
        record |= {"layout": layout, "cells": cells_text(_cells([sizes[name] for name in layout]))}
    return record | ({"per_octave": round(growth, 3)} if growth else {})


def crossed_interval(rows: pd.DataFrame, unseen_us: Array, family: Family, coverage: float = 0.8) -> Array:
    """Low and high ends for each row by a record of the other folds, which has seen neither its shape nor its error.

    Arguments as in `residual_record`; nan if it has no estimate, or the others have none.
    """
    found = np.full((2, len(rows)), np.nan)
    for fold in range(FOLDS):
        out = held_out(rows, family.layout, fold)
        record = residual_record(rows[~out], unseen_us[~out], family)
        if out.any() and record:
            found[:, out] = interval_us(rows[out], unseen_us[out], record, family, coverage)
    return found


def known(rows: pd.DataFrame, predicted_us: Array) -> tuple[pd.DataFrame, Array, Array]:
    """The rows that have an estimate, the estimates, and log(measured / predicted)."""
    predicted_us = np.asarray(predicted_us, dtype=float)
    chosen = np.isfinite(predicted_us) & (predicted_us > 0.0)
    rows, predicted_us = rows[chosen], predicted_us[chosen]
    return rows, predicted_us, np.log(rows["latency_us"].to_numpy(dtype=float) / predicted_us)


def described(rows: pd.DataFrame, family: Family) -> tuple[Any, dict[str, Array]]:
    """The kind of each row, and its sizes in octaves."""
    kinds = np.empty(len(rows), dtype=object)
    sizes: dict[str, Array] = {}
    for places, shape in shapes_of(rows, family):
        kinds[places] = kind_of(shape)
        for name, value in sizes_of(shape).items():
            sizes.setdefault(name, np.zeros(len(rows)))[places] = octaves(value)
    return kinds, sizes


def _cells(sizes: list[Array]) -> Array:
    return np.unique(np.round(np.stack(sizes, axis=-1)), axis=0)


def _far(rows: pd.DataFrame, sizes: dict[str, Array], layout: list[str], family: Family) -> Array:
    """Octaves of each row to the layouts that the fit behind its estimate has seen."""
    far = np.zeros(len(rows))
    if not layout:
        return far
    for fold in range(FOLDS):
        out = held_out(rows, family.layout, fold)
        if out.any() and not out.all():
            seen = _cells([sizes[name][~out] for name in layout])
            far[out] = beyond_cells(seen, [sizes[name][out] for name in layout])
    return far


def _growth(residual: Array, far: Array) -> float:
    """Relative growth of the spread per octave; 0 if too few rows are away from the measurements."""
    away = far > 0.0
    if away.sum() < FEWEST_FAR or (~away).sum() < FEWEST_FAR:
        return 0.0
    near_spread, far_spread = (float(np.quantile(np.abs(residual[which]), 0.8)) for which in (~away, away))
    return max(0.0, (far_spread / near_spread - 1.0) / float(far[away].mean()))


def quantiles(residual: Array, kinds: Any, predicted_us: Array, apart: Apart) -> dict[str, dict[str, list[float]]]:
    """By kind and class of predicted time; also of the whole family and of whole kinds, for rare cases.

    apart: number of independent errors among some rows
    """
    which = class_of(predicted_us)
    telling = ~np.isin(kinds, HOSTED)
    telling = telling if telling.any() else ~telling
    found = {ALL: {ALL: quantiles_of(residual[telling], apart(telling))}}
    for kind in sorted(set(kinds)):
        here = kinds == kind
        if here.sum() < FEWEST:
            continue
        found[kind] = {ALL: quantiles_of(residual[here], apart(here))}
        for i, name in enumerate(CLASSES):
            chosen = here & (which == i)
            if chosen.sum() >= FEWEST:
                found[kind][name] = quantiles_of(residual[chosen], apart(chosen))
    return found


def quantiles_of(residual: Array, n: float) -> list[float]:
    """Unbiased quantiles from n shapes: a further shape lies below each with exactly that probability.

    The p-th of n + 1 shapes lies p (n + 1) places from the lowest (Weibull 1939; Hyndman and Fan 1996, type 6), so that
    few shapes give wider intervals.
    """
    at = (np.array(PROBABILITIES) * (n + 1.0) - 0.5) / n
    return [round(float(value), 3) for value in np.quantile(residual, np.clip(at, 0.0, 1.0))]


def shapes_apart(rows: pd.DataFrame, family: Family) -> Apart:
    """The number of whole shapes in some rows, since errors of one shape are correlated."""
    numbers = rows.groupby(list(family.layout), dropna=False).ngroup().to_numpy()
    return lambda chosen: float(len(np.unique(numbers[chosen])))


def common_part(residual: Array, groups: Array) -> float:
    """The share of the variance that is common within groups, by an analysis of variance; 0 for a single group."""
    parts = [residual[groups == group] for group in np.unique(groups)]
    parts = [part for part in parts if len(part) > 1]
    if len(parts) < 2:
        return 0.0
    inside = [float(part.var(ddof=1)) for part in parts]
    noise = float(np.mean([var / len(part) for var, part in zip(inside, parts, strict=True)]))
    between = float(np.var([part.mean() for part in parts], ddof=1)) - noise
    return between / (between + float(np.mean(inside))) if between > 0.0 else 0.0


def groups_apart(residual: Array, groups: Array, shapes: float) -> float:
    """The effective number of independent errors of this many shapes with correlated errors within groups.

    The design effect of samples in clusters (L. Kish, "Survey Sampling", 1965, section 5.4).
    """
    shared = common_part(residual, groups)
    return 1.0 / (shared / len(np.unique(groups)) + (1.0 - shared) / shapes)
