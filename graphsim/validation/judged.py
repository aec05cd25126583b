"""One measured figure beside its prediction, as every `graphsim validate` of measurements gives it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd


def judged_line(name: Any, metric: str, measured: Any, predicted: float, problem: str = "") -> dict[str, Any]:
    """id, metric, measured, predicted, error and problem of a figure.

    error: predicted / measured - 1; nan where nothing was predicted, or what was measured is 0 or no number
    problem: why nothing was predicted; "" where something was
    """
    try:
        value = float(measured)
    except (TypeError, ValueError):
        value = np.nan
    error = predicted / value - 1.0 if value else np.nan
    return {
        "id": str(name), "metric": metric, "measured": value, "predicted": predicted, "error": error,
        "problem": problem,
    }  # fmt: skip


def medians(table: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """rows, median (of the error's size) and bias (the median error) of figures alike."""
    sizes = table.assign(size=table["error"].abs()).groupby(keys, sort=True)
    return sizes.agg(rows=("size", "size"), median=("size", "median"), bias=("error", "median")).reset_index()
