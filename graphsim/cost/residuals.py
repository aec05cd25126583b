"""Errors of estimated kernels: quantiles of log(measured / predicted) on shapes left out.

A record stands next to a family's parameters under `residuals` (`calibration/uncertainty.py` makes it), and says

    quantiles    for each kind of kernel (`kind_of`) and class of predicted time, at PROBABILITIES
    cells        layouts that were measured, as octaves of `layout` (`cells_of`); ranges: of every other size, in log2
    per_octave   how much wider residuals get for each octave that a shape lies beyond these

Nothing is assumed: each number is a statistic of kernels that the fit behind the prediction has not seen.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from functools import lru_cache, singledispatch
from itertools import pairwise
from math import isfinite
from statistics import NormalDist
from typing import Any

import numpy as np

from graphsim.cost.families.formats import dtype_of
from graphsim.cost.families.gemm import CAPTURED, GemmShape
from graphsim.cost.surfaces.tables import Array
from graphsim.errors import ConfigError
from graphsim.units import Num, amount_text, as_number, short

RESIDUALS = "residuals"
"""Where a record stands in the parameters of a family."""

PROBABILITIES = (0.01, 0.05, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9, 0.95, 0.99)
"""At which quantiles are kept."""

MOST_COVERAGE = 0.98
"""The widest interval that these quantiles tell."""

CLASSES = {"10": 10.0, "100": 100.0, "1000": 1000.0, "inf": np.inf}
"""Classes of predicted time, by name, with their upper bounds in microseconds."""

ALL = "all"
"""The class of all times, and the kind of all kernels of a family: for what had too few rows of its own."""

SCORES = np.array([NormalDist().inv_cdf(p) for p in PROBABILITIES])
"""Between quantiles, residuals go as those of a normal distribution."""

Record = Mapping[str, Any]


def coverage_of(value: Any) -> float:
    """A coverage as a number. Raises ConfigError for what is none, or more than the quantiles tell."""
    number = as_number(value)
    if not isinstance(number, float) or not 0.0 < number <= MOST_COVERAGE:
        raise ConfigError(
            f"coverage = {short(value)} is not allowed; expected a number above 0, at most {amount_text(MOST_COVERAGE)}"
        )
    return number


def score_of(probability: Num) -> Array:
    """The standard normal score of each probability."""
    inverse = NormalDist().inv_cdf
    return np.array([inverse(float(p)) for p in np.ravel(probability)]).reshape(np.shape(probability))


@singledispatch
def kind_of(shape: Any) -> str:
    """What kind of kernel a shape is of, as its texts say: phase, number format, kind of collective."""
    kind: Any = type(shape)
    texts = [getattr(shape, name) for name in _names(kind, "str") if name not in _NO_KIND]
    return " ".join(texts)


@kind_of.register
def _(shape: GemmShape) -> str:
    """A number format; one whose eager calls wait for the host is another kind in a captured graph."""
    return CAPTURED if shape.dtype == EAGER and not shape.eager else dtype_of("gemm", shape.dtype)


EAGER = "fp8_block"
"""The format of GEMMs that was measured as eager calls."""

HOSTED = (EAGER, "custom_allreduce_eager")
"""Kinds that were measured waiting for the host, which say nothing of others."""

INSTEAD = {CAPTURED: "fp8"}
"""A kind that stands in for another one without residuals of its own."""

_NO_KIND = ("distribution", "kernel")
"""Texts that a graph does not know of its kernels, or that parameters are chosen by."""


def with_captured(record: Record, theirs: Record) -> Record:
    """A record of GEMMs with the residuals of another engine's for the kind in a captured graph."""
    if EAGER not in theirs.get("quantiles", {}):
        return record
    common, kinds = dict(record.get("common", {})), dict(record["quantiles"])
    kinds[CAPTURED] = theirs["quantiles"][EAGER]
    common |= {CAPTURED: theirs["common"][EAGER]} if EAGER in theirs.get("common", {}) else {}
    return {**record, "quantiles": kinds, "common": common}


def sizes_of(shape: Any) -> dict[str, Num]:
    """The sizes of a shape, which say how far it lies from others: those that it states (`sizes`), else its numbers."""
    kind: Any = type(shape)
    return shape.sizes if hasattr(shape, "sizes") else {name: getattr(shape, name) for name in _names(kind, "Num")}


@lru_cache(maxsize=64)
def _names(kind: type, annotation: str) -> tuple[str, ...]:
    return tuple([field.name for field in fields(kind) if field.type == annotation])


def octaves(value: Num) -> Array:
    """log2 of a size; what is not there, as a window, counts as 1."""
    found: Array = np.log2(np.maximum(np.asarray(value, dtype=float), 1.0))
    return found


def beyond(record: Record, shape: Any) -> Array:
    """How many octaves a shape lies beyond what was measured, summed over its sizes; 0 among these."""
    sizes = {name: octaves(value) for name, value in sizes_of(shape).items()}
    far = np.zeros(np.broadcast_shapes(*[value.shape for value in sizes.values()]))
    for name, (low, high) in record.get("ranges", {}).items():
        if name in sizes:
            far = far + np.maximum(np.maximum(low - sizes[name], sizes[name] - high), 0.0)
    layout = record.get("layout", ())
    if layout and all(name in sizes for name in layout):
        far = far + beyond_cells(cells_of(record["cells"]), [sizes[name] for name in layout])
    return far


@lru_cache(maxsize=256)
def cells_of(text: str) -> Array:
    """Cells as a record writes them: a word for each, a digit of base 36 for each of its octaves."""
    return np.array([[int(digit, 36) for digit in word] for word in text.split()], dtype=float)


def cells_text(cells: Array) -> str:
    """The text of which `cells_of` gives the cells."""
    return " ".join("".join(_DIGITS[min(int(octave), 35)] for octave in cell) for cell in cells)


_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"


def beyond_cells(cells: Array, at: list[Array]) -> Array:
    """Octaves to the nearest cell, each of which is an octave wide in every direction.

    at: a size in each direction
    """
    places = np.stack(np.broadcast_arrays(*at), axis=-1)
    different, back = np.unique(places.reshape(-1, len(at)), axis=0, return_inverse=True)
    off = np.maximum(np.abs(different[:, None, :] - cells) - 0.5, 0.0).sum(axis=-1).min(axis=1)
    return np.asarray(off[back.reshape(-1)].reshape(places.shape[:-1]))


def log_residuals(record: Record, kind: str, predicted_s: Num, scores: Array, far: Num = 0.0) -> Array:
    """log(measured / predicted) of kernels at each normal score: scores along the first axis, kernels behind.

    kind: of the kernels (`kind_of`)
    predicted_s: their estimated times
    far: their distances (`beyond`)
    """
    kinds = record["quantiles"]
    table = kinds.get(kind) or kinds.get(INSTEAD.get(kind, ALL)) or kinds[ALL]
    by_class = [table.get(name) or table[ALL] for name in CLASSES]
    at_scores = np.stack([np.interp(scores, SCORES, values) for values in by_class], axis=-1)
    middle = np.array([values[len(SCORES) // 2] for values in by_class])
    which = class_of(1e6 * np.asarray(predicted_s, dtype=float))
    wider = 1.0 + record.get("per_octave", 0.0) * np.asarray(far)
    return np.asarray(middle[which] + (at_scores[..., which] - middle[which]) * wider)


def class_of(predicted_us: Array) -> Any:
    """The place in CLASSES of each time."""
    return np.minimum(np.searchsorted(list(CLASSES.values()), predicted_us, side="right"), len(CLASSES) - 1)


def check_record(record: Any, here: str) -> Record:
    """A record as it was read. Raises ConfigError, opened by `here`, for what `residual_record` does not write."""
    if not isinstance(record, Mapping) or not isinstance(record.get("quantiles"), Mapping):
        raise ConfigError(f"{here} = {short(record)} is not allowed; expected a mapping with quantiles")
    if not all(digit in _DIGITS + " " for digit in str(record.get("cells", ""))):
        raise ConfigError(f"{here}.cells = {short(record['cells'])} is not allowed; expected words of digits")
    kinds = record["quantiles"]
    for kind, table in {ALL: None, **kinds}.items():
        if not isinstance(table, Mapping) or ALL not in table:
            raise ConfigError(f"{here}.quantiles.{kind}.{ALL} is missing")
        for name, values in table.items():
            _check_quantiles(values, f"{here}.quantiles.{kind}.{name}")
    return record


def _check_quantiles(values: Any, here: str) -> None:
    numbers = isinstance(values, list) and all(isinstance(value, int | float) and isfinite(value) for value in values)
    if not numbers or len(values) != len(PROBABILITIES) or any(a > b for a, b in pairwise(values)):
        raise ConfigError(f"{here} = {short(values)} is not allowed; expected {len(PROBABILITIES)} ascending numbers")
