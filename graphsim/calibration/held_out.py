"""Accuracy of a fit on unseen shapes: four-fold cross-validation over whole shapes.

A shape (all GEMMs with one n and k, one head layout, one expert layout on one cut, one message size among one
number of devices) is in one fold with all its rows. Every row is predicted once by a fit on the other three folds; of
large data sets, only the rows of two folds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from graphsim.cost.families.registry import FAMILIES, Family
from graphsim.cost.kernels import by_engine, predict_with
from graphsim.cost.surfaces.tables import Array
from graphsim.errors import ConfigError, choices_text
from graphsim.hardware import Hardware, load_hardware

if TYPE_CHECKING:
    import pandas as pd

FOLDS = 4
"""Parts that the shapes are distributed over."""

MANY, MANY_SHAPES = 10_000, 100
"""Rows, or shapes of FEW rows and more, from which two folds are sufficient, saving half the time. Half of fewer
shapes does not represent the rest: for the A100's 39 layouts of attention the spread came out twice as wide.
"""

FEW = 3_000
"""Rows up to which all folds are judged on, however many shapes they have."""

THIN = 128
"""GEMMs with n or k up to here count as LoRA-shaped."""

ALL, THIN_NAME = "all", f"n or k up to {THIN}"
"""Names of the sizes that are distinguished."""

Progress = Callable[[str], None]


def held_out(frame: pd.DataFrame, layout: Iterable[str], fold: int = 0, folds: int = FOLDS) -> Any:
    """Which rows belong to held-out shapes: a hash of the layout columns, the same on every machine."""
    code = np.zeros(len(frame), dtype=np.uint64)
    with np.errstate(over="ignore"):
        for name in layout:
            values = frame[name].fillna(0).to_numpy(dtype=np.float64)
            code = (code ^ np.round(values * 64.0).astype(np.int64).view(np.uint64)) * np.uint64(0x9E3779B97F4A7C15)
            code ^= code >> np.uint64(29)
    return code % np.uint64(folds) == np.uint64(fold)


def predicted_unseen(rows: pd.DataFrame, family: Family, hardware: Hardware) -> Array:
    """`latency_us` of every row by a fit that has not seen its shape; nan if no fit is possible without it."""
    found: Array = np.full(len(rows), np.nan)
    for fold in range(FOLDS // 2 if _is_many(rows, family) else FOLDS):
        out = held_out(rows, family.layout, fold)
        if out.any() and not out.all():
            known = {family.fits or family.name: family.module.fit(rows[~out], hardware)}
            found[out] = predict_with(rows[out], hardware, parameters=known).to_numpy()
    return found


def _is_many(rows: pd.DataFrame, family: Family) -> bool:
    """Whether half of the folds has enough shapes to evaluate a fit."""
    if FEW <= len(rows) < MANY:
        return len(rows[list(family.layout)].drop_duplicates()) >= MANY_SHAPES
    return len(rows) >= MANY


def held_out_errors(
    frame: pd.DataFrame,
    hardware: str | Path | Mapping[str, Any] | Hardware,
    *,
    families: Iterable[str] | None = None,
    progress: Progress | None = None,
    interval: Callable[[pd.DataFrame, Array, Family], Array] | None = None,
) -> pd.DataFrame:
    """Errors of one device's rows, one line per op, number format and size, in sample and on held-out shapes.

    Columns: hardware, engine and kernel ("" for the base), family, op, dtype (of the cache for attention), size (all
    rows, and of GEMMs those with n or k up to THIN), rows; then the median of
    |predicted / measured - 1| of a fit on everything (`in_sample`) and of fits that have not seen the shape
    (`held_out`), its 90th percentile (`held_out_p90`) and the median of predicted / measured - 1 (`held_out_bias`).
    families: which ones (all that the rows hold)
    interval: from rows, estimates and family the low and the high end of each row; `coverage` and `width` then say how
        many rows lie between them, and how wide they are at the median, in parts of the rows' own 10 to 90 % range
    Raises ConfigError for an unknown family.
    """
    import pandas as pd

    device, say = load_hardware(hardware), progress or (lambda text: None)
    lines: list[dict[str, Any]] = []
    for family in _chosen(families):
        for (engine, kernel), mine in by_engine(frame, frame["op"].isin(family.ops).to_numpy()):
            rows = frame[mine]
            say(f"{device.name} {family.name} {kernel}: {len(rows)} points")
            fitted = family.module.fit(rows, device)
            whole = predict_with(rows, device, parameters={family.fits or family.name: fitted}).to_numpy()
            head = {"hardware": device.name, "engine": engine, "kernel": kernel}
            unseen = predicted_unseen(rows, family, device)
            ends = interval(rows, unseen, family) if interval else None
            lines += lines_of(rows, whole, unseen, head, family, ends)
    return pd.DataFrame(lines)


def lines_of(
    rows: pd.DataFrame,
    whole: Array,
    unseen: Array,
    head: Mapping[str, Any],
    family: Family,
    ends: Array | None = None,
) -> list[dict[str, Any]]:
    """One line of errors per op and number format, and one of the LoRA-shaped GEMMs among them."""
    measured = rows["latency_us"].to_numpy(dtype=float)
    inside, outside = whole / measured - 1.0, unseen / measured - 1.0
    thin = thin_products(rows)
    lines = []
    for (op, dtype), places in _numbered(rows, family).groupby(["op", "dtype"], sort=True)["place"]:
        every = places.to_numpy()
        for size, chosen in ((ALL, every), (THIN_NAME, every[thin[every]])):
            if len(chosen):
                line = dict(head) | {"family": family.name, "op": op, "dtype": dtype, "size": size}
                line |= _errors(inside[chosen], outside[chosen])
                lines.append(
                    line | (covered(measured[chosen], unseen[chosen], ends[:, chosen]) if ends is not None else {})
                )
    return lines


def covered(measured: Array, predicted: Array, ends: Array) -> dict[str, float]:
    """The share of measurements within the ends, and the median width.

    The width is that of the logarithms, in parts of the 10 to 90 % range of log(measured / predicted): an interval of
    80 % that is no wider than it has to be has a width of 1.
    """
    known = np.isfinite(ends).all(axis=0) & np.isfinite(predicted)
    if known.sum() < 2:
        return {"coverage": np.nan, "width": np.nan}
    low, high = ends[:, known]
    residual = np.log(measured[known] / predicted[known])
    own = float(np.subtract(*np.quantile(residual, [0.9, 0.1])))
    width = float(np.median(np.log(high / low)))
    inside = (measured[known] >= low) & (measured[known] <= high)
    return {"coverage": float(inside.mean()), "width": width / own if own > 0.0 else np.inf}


def thin_products(rows: pd.DataFrame) -> Any:
    """Which rows are LoRA-shaped: GEMMs with n or k up to THIN."""
    if not {"n", "k"} <= set(rows.columns):
        return np.zeros(len(rows), dtype=bool)
    return ((rows["op"] == "gemm") & (rows[["n", "k"]].min(axis=1) <= THIN)).to_numpy()


def _errors(inside: Array, outside: Array) -> dict[str, float]:
    off = outside[np.isfinite(outside)]
    line = {"rows": len(inside), "in_sample": float(np.median(np.abs(inside)))}
    known = {"held_out": np.nan, "held_out_p90": np.nan, "held_out_bias": np.nan}
    if len(off):
        size = np.abs(off)
        known = {
            "held_out": float(np.median(size)), "held_out_p90": float(np.quantile(size, 0.9)),
            "held_out_bias": float(np.median(off)),
        }  # fmt: skip
    return line | known


def _numbered(rows: pd.DataFrame, family: Family) -> pd.DataFrame:
    """The op and number format of every row with its position; attention is grouped by its cache's format."""
    column = "kv_dtype" if family.name == "attention" else "dtype"
    dtypes = rows[column].fillna("").astype(str) if column in rows else ""
    return rows[["op"]].assign(dtype=dtypes, place=np.arange(len(rows)))


def _chosen(families: Iterable[str] | None) -> list[Family]:
    if families is None:
        return list(FAMILIES.values())
    names = list(families)
    for name in names:
        if name not in FAMILIES:
            raise ConfigError(f"family '{name}' is not known; {choices_text(name, FAMILIES)}")
    return [FAMILIES[name] for name in dict.fromkeys(names)]
