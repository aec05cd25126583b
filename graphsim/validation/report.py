"""The recorded accuracy of the shipped calibrations, as tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from graphsim.cost.parameters.store import Calibration, calibration_path, load_calibration
from graphsim.files.frameworks import ENGINES
from graphsim.hardware import list_hardware, load_hardware

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ("device", "engine", "kernel", "family", "format", "points", "date", "held_out_error")


def held_out_table() -> pd.DataFrame:
    """One row per calibrated device, engine, kernel, family and format, as the calibration files record them.

    engine: engine of the kernels; "" for the base calibration
    kernel: name of the engine's kernel; "" for the base calibration
    points: number of measurements in the fit of the family or kernel, all formats together
    date: date of the fit
    held_out_error: median of |predicted / measured - 1| on shapes excluded from the fit, as a fraction
    """
    import pandas as pd

    rows = []
    for name in list_hardware():
        device = load_hardware(name)
        for engine in ("", *ENGINES):
            path = calibration_path(device, engine)
            if path is not None:
                rows += [{"device": name, "engine": engine} | row for row in _rows(load_calibration(path))]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _rows(calibration: Calibration) -> Iterator[dict[str, Any]]:
    for family, kernel, facts in _records(calibration):
        for kind, error in facts.get("held_out_median_error", {}).items():
            yield {
                "kernel": kernel, "family": family, "format": kind, "points": facts["points"], "date": facts["date"],
                "held_out_error": error,
            }  # fmt: skip


def _records(calibration: Calibration) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """Family, kernel and the file's record of their fit; an engine's file has one record per kernel."""
    for family, found in calibration.provenance["families"].items():
        for kernel, facts in found.items() if calibration.engine else [("", found)]:
            yield family, kernel, facts
