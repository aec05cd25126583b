"""Fits of the smaller families on the reference's module tables, made once for a test run; skipped without them."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import pytest

from graphsim.calibration.held_out import predicted_unseen
from graphsim.cost.families.registry import FAMILIES
from graphsim.cost.kernels import predict_with
from graphsim.hardware import Hardware, load_hardware
from tests.paths import REFERENCE

FILES = REFERENCE / "modules"
DEVICES = {
    "h100_sxm": "h100-sxm", "h200_sxm": "h200-sxm", "b200_sxm": "b200-sxm", "gb200": "gb200", "l40s": "l40s",
    "rtx_pro_6000_server": "rtx-pro-6000",
}  # fmt: skip


@cache
def _table(family: str) -> pd.DataFrame | None:
    path = FILES / f"{family}.parquet"
    return pd.read_parquet(path) if path.is_file() else None


def measured(family: str, device: str, framework: str, **chosen: str) -> pd.DataFrame:
    """Rows of one device and framework. chosen: values of further columns."""
    table = _table(family)
    if table is None:
        pytest.skip(f"needs the reference's modules/{family}.parquet")
    rows = table[(table["gpu"] == device) & (table["framework"] == framework)]
    for column, value in chosen.items():
        rows = rows[rows[column] == value]
    return rows.reset_index(drop=True)


@cache
def fitted(family: str, device: str, framework: str) -> tuple[dict[str, Any], Hardware]:
    """A family's parameters on one device under one framework, and the device."""
    hardware = load_hardware(DEVICES[device])
    return FAMILIES[family].module.fit(measured(family, device, framework), hardware), hardware


def left_out_error(family: str, device: str, framework: str, **chosen: str) -> float:
    """Median error on shapes that the fit has not seen."""
    rows = measured(family, device, framework, **chosen)
    found = predicted_unseen(rows, FAMILIES[family], load_hardware(DEVICES[device]))
    return median_error(found, rows)


def lent_error(family: str, device: str, sibling: str, framework: str, **chosen: str) -> float:
    """Median error on one device by the fit of another."""
    rows = measured(family, device, framework, **chosen)
    known = {family: FAMILIES[family].module.fit(measured(family, sibling, framework, **chosen),
                                                load_hardware(DEVICES[sibling]))}  # fmt: skip
    return median_error(predict_with(rows, load_hardware(DEVICES[device]), parameters=known).to_numpy(), rows)


def median_error(predicted: Any, rows: pd.DataFrame) -> float:
    return float(np.nanmedian(np.abs(predicted / rows["latency_us"].to_numpy() - 1.0)))
