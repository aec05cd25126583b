"""From kernel measurements to a calibration: fit every family, hold whole shapes out to see what it is worth.

The parameters kept are fitted on everything; beside their error stands that on shapes held out (`held_out.py`).
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from graphsim.calibration.held_out import ALL, Progress, lines_of, predicted_unseen
from graphsim.cost.families import elementwise
from graphsim.cost.kernels import FAMILY_OF, Family, family_of, predict_with
from graphsim.cost.parameters.store import SUFFIX, Calibration, calibration_path, load_calibration, save_calibration
from graphsim.cost.surfaces.tables import Array
from graphsim.errors import ConfigError
from graphsim.files.measured import read_facts
from graphsim.hardware import Hardware, load_hardware

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Measurements and the name under which the provenance lists them."""

    name: str
    frame: pd.DataFrame


def read_measurements(path: Path) -> pd.DataFrame:
    """Rows in the reference schema from a parquet or CSV file. Raises ConfigError if it cannot be read."""
    import pandas as pd

    frame = read_facts(path, "measurements")
    missing = [name for name in ("op", "dtype", "latency_us") if name not in frame.columns]
    if missing:
        raise ConfigError(f"{path}: column {', '.join(missing)} missing; expected op, dtype, latency_us and the shape")
    latency_us = pd.to_numeric(frame["latency_us"], errors="coerce")
    if not (np.isfinite(latency_us) & (latency_us > 0)).all():
        raise ConfigError(f"{path}: latency_us must be above 0, and finite, in every row")
    return frame


def calibrate(
    sources: Iterable[Source],
    hardware: str | Path | Mapping[str, Any] | Hardware,
    *,
    date: str | None = None,
    progress: Progress | None = None,
) -> Calibration:
    """Fit every family that the measurements hold; families of an existing calibration that they lack are kept.

    date: of the calibration, for its provenance (today by default)
    Raises ConfigError if there are no rows of a known op.
    """
    device, given, say = load_hardware(hardware), list(sources), progress or (lambda text: None)
    frame = _joined(given)
    old = calibration_path(device)
    kept = load_calibration(old) if old else None
    families: dict[str, Any] = dict(kept.families) if kept else {}
    record: dict[str, Any] = dict(kept.provenance.get("families", {})) if kept else {}
    day = date or datetime.date.today().isoformat()
    for family in dict.fromkeys(family_of(str(op)) for op in frame["op"].unique()):
        rows = frame[frame["op"].isin(family.ops)]
        say(f"{family.name}: {len(rows)} points")
        families[family.name] = family.module.fit(rows, device)
        fitted = predict_with(rows, device, lent=families).to_numpy()
        whole = _error(fitted, rows["latency_us"].to_numpy(dtype=float))
        judged = _judge(rows, fitted, family, device)
        record[family.name] = {
            "data": sorted({source.name for source in given}), "points": len(rows), "date": day,
            "median_error": whole, "held_out_median_error": judged,
        }  # fmt: skip
        say(f"{family.name}: median error {whole:.1%}, on held-out shapes {judged}")
    if "elementwise" not in record and "gemm" in families:
        families["elementwise"] = elementwise.borrow(families["gemm"])
    return Calibration(
        hardware=device.name,
        architecture=device.architecture,
        families={name: families[name] for name in sorted(families)},
        provenance={"families": {name: record[name] for name in sorted(record)}},
    )


def calibrate_files(
    paths: Iterable[str | Path],
    hardware: str | Path | Hardware,
    out: Path | None = None,
    *,
    date: str | None = None,
    progress: Progress | None = None,
) -> Path:
    """Calibrate from files and write `NAME.calibration.json` beside the device's file (or to `out`); returns its path.

    Raises ConfigError for unreadable files, HardwareError for an unknown device.
    """
    device = load_hardware(hardware)
    if out is None and device.path is None:
        raise ConfigError(f"hardware '{device.name}' comes from no file; give the path to write the calibration to")
    sources = [Source(name=Path(path).name, frame=read_measurements(Path(path))) for path in paths]
    target = out or device.path.with_name(device.path.stem + SUFFIX)  # type: ignore[union-attr]
    save_calibration(calibrate(sources, device, date=date, progress=progress), target)
    return target


def _joined(sources: list[Source]) -> pd.DataFrame:
    import pandas as pd

    if not sources:
        raise ConfigError("no measurements are given; expected at least one file")
    frame = pd.concat([source.frame for source in sources], ignore_index=True)
    known = frame["op"].isin(list(FAMILY_OF))
    if not known.any():
        family_of(str(frame["op"].iloc[0]) if len(frame) else "")
    return frame[known].reset_index(drop=True)


def _judge(rows: pd.DataFrame, whole: Array, family: Family, hardware: Hardware) -> dict[str, float]:
    """Median error on held-out shapes, of fits that never saw them, per number format (and op, if several)."""
    lines = [
        line
        for line in lines_of(rows, whole, predicted_unseen(rows, family, hardware), {}, family)
        if line["size"] == ALL
    ]
    several = len({line["op"] for line in lines}) > 1
    names = [f"{line['op']} {line['dtype']}" if several else str(line["dtype"]) for line in lines]
    return {
        name: round(line["held_out"], 4)
        for name, line in zip(names, lines, strict=True)
        if np.isfinite(line["held_out"])
    }


def _error(predicted: Array, measured: Array) -> float:
    return round(float(np.median(np.abs(predicted / measured - 1.0))), 4)
