"""One measured figure with its prediction, in the form of every `graphsim validate` of measurements."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd


def judged_line(name: Any, metric: str, measured: Any, predicted: float, problem: str = "") -> dict[str, Any]:
    """id, metric, measured, predicted, error and problem of a figure.

    error: predicted / measured - 1; nan without a prediction, or if the measured value is 0 or not a number
    problem: the reason for a missing prediction; "" if there is one
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
    """Per group of equal `keys`: number of rows, median absolute error and bias (the median error)."""
    sizes = table.assign(size=table["error"].abs()).groupby(keys, sort=True)
    return sizes.agg(rows=("size", "size"), median=("size", "median"), bias=("error", "median")).reset_index()
