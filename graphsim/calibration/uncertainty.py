"""What a calibration keeps of its own errors: residuals of shapes that the fit has not seen, as a few quantiles."""

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
"""How many of the chosen rows err apart, from a mask of these."""

FEWEST = 40
"""Rows from which on a kind or a class has quantiles of its own: four lie beyond each end of the usual interval."""

FEWEST_FAR = 40
"""Rows away from what was measured that say how residuals grow with the distance."""


def residual_record(rows: pd.DataFrame, unseen_us: Array, family: Family) -> dict[str, Any]:
    """The residual record of a family (`cost/residuals.py`); empty where no row was predicted unseen.

    rows: measured kernels in the reference schema; unseen_us: the estimate of each by a fit that has not seen its
        shape (`predicted_unseen`), nan where there is none
    """
    rows, unseen_us, residual = known(rows, unseen_us)
    if rows.empty:
        return {}
    if family.composed:  # of what is fitted to whole blocks, these err together with what is in them
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

    Arguments as in `residual_record`; nan where it has no estimate, or the others have none.
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
    """By how much of itself the spread grows with each octave; 0 where too few rows lie away to tell."""
    away = far > 0.0
    if away.sum() < FEWEST_FAR or (~away).sum() < FEWEST_FAR:
        return 0.0
    near_spread, far_spread = (float(np.quantile(np.abs(residual[which]), 0.8)) for which in (~away, away))
    return max(0.0, (far_spread / near_spread - 1.0) / float(far[away].mean()))


def quantiles(residual: Array, kinds: Any, predicted_us: Array, apart: Apart) -> dict[str, dict[str, list[float]]]:
    """By kind and class of predicted time; of the whole family and of whole kinds beside, for what is rare.

    apart: how many of some rows err apart
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
    """Quantiles of which a further shape lies below each with just that probability, by what n shapes can tell.

    The p-th of n + 1 shapes lies p (n + 1) places from the lowest (Weibull 1939; Hyndman and Fan 1996, type 6), so that
    few shapes give wider intervals.
    """
    at = (np.array(PROBABILITIES) * (n + 1.0) - 0.5) / n
    return [round(float(value), 3) for value in np.quantile(residual, np.clip(at, 0.0, 1.0))]


def shapes_apart(rows: pd.DataFrame, family: Family) -> Apart:
    """How many whole shapes some rows hold: rows of one shape err together."""
    numbers = rows.groupby(list(family.layout), dropna=False).ngroup().to_numpy()
    return lambda chosen: float(len(np.unique(numbers[chosen])))


def common_part(residual: Array, groups: Array) -> float:
    """The part of the variance that those of a group share: of an analysis of variance, 0 for a single group."""
    parts = [residual[groups == group] for group in np.unique(groups)]
    parts = [part for part in parts if len(part) > 1]
    if len(parts) < 2:
        return 0.0
    inside = [float(part.var(ddof=1)) for part in parts]
    noise = float(np.mean([var / len(part) for var, part in zip(inside, parts, strict=True)]))
    between = float(np.var([part.mean() for part in parts], ddof=1)) - noise
    return between / (between + float(np.mean(inside))) if between > 0.0 else 0.0


def groups_apart(residual: Array, groups: Array, shapes: float) -> float:
    """How many of this many shapes err apart, where those of a group share an error.

    The design effect of samples in clusters (L. Kish, "Survey Sampling", 1965, section 5.4).
    """
    shared = common_part(residual, groups)
    return 1.0 / (shared / len(np.unique(groups)) + (1.0 - shared) / shapes)
