"""From kernel measurements to a calibration: fit every family, hold whole shapes out to evaluate it.

The parameters kept are fitted on everything; next to them stand the residuals of fits that have not seen the shape
(`uncertainty.py`), and, with their error, that on held-out shapes (`held_out.py`).
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from graphsim.calibration.held_out import ALL, Progress, lines_of, predicted_unseen
from graphsim.calibration.uncertainty import residual_record
from graphsim.cost.families import elementwise
from graphsim.cost.families.registry import COMPOSED_OF, FAMILY_OF, Family, family_of
from graphsim.cost.kernels import by_engine, check_shapes, predict_with, roofline_kernels
from graphsim.cost.parameters.engines import engine_of
from graphsim.cost.parameters.store import (
    SUFFIX,
    Calibration,
    beside,
    calibration_path,
    load_calibration,
    save_calibration,
    suffix,
)
from graphsim.cost.residuals import RESIDUALS
from graphsim.cost.surfaces.tables import Array
from graphsim.errors import ConfigError
from graphsim.files.measured import numbers_of, read_facts
from graphsim.hardware import Hardware, device_described, load_hardware

if TYPE_CHECKING:
    import pandas as pd


TOO_FAST = 0.1
"""Share of the datasheet's least time below which measurements are a mistake; caches explain less of a speed-up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Measurements and the name under which the provenance lists them."""

    name: str
    frame: pd.DataFrame


def read_measurements(path: Path) -> pd.DataFrame:
    """Rows in the reference schema from a parquet or CSV file. Raises ConfigError if it cannot be read."""
    frame = read_facts(path, "measurements")
    missing = [name for name in ("op", "latency_us") if name not in frame.columns]
    if missing:
        raise ConfigError(f"{path}: column {', '.join(missing)} missing; expected op, latency_us and the shape")
    latency_us = numbers_of(frame["latency_us"])
    if not (np.isfinite(latency_us) & (latency_us > 0)).all():
        raise ConfigError(f"{path}: latency_us must be above 0, and finite, in every row")
    return frame


def calibrate(
    sources: Iterable[Source],
    hardware: str | Path | Mapping[str, Any] | Hardware,
    *,
    engine: str = "",
    blocks: bool = False,
    date: str | None = None,
    progress: Progress | None = None,
) -> Calibration:
    """Fit every family in an engine's rows; other families of an existing calibration are kept.

    engine: the engine of the rows, of `ENGINES`; "" for the base, vLLM's and NCCL's
    blocks: fit the families of whole blocks, less the other kernels in them by the device's parameters; otherwise
        kernels
    date: of the calibration, for its provenance (today by default)
    Raises ConfigError if there are no rows of a known op.
    """
    device, given, say = load_hardware(hardware), list(sources), progress or (lambda text: None)
    frame = _joined(given)
    frame = frame[_engines(frame) == engine]
    old = calibration_path(device, engine)
    kept = load_calibration(old) if old else None
    families: dict[str, Any] = dict(kept.families) if kept else {}
    record: dict[str, Any] = dict(kept.provenance.get("families", {})) if kept else {}
    facts = {"data": sorted({source.name for source in given}), "date": date or datetime.date.today().isoformat()}
    for family in _families_of(frame, blocks=blocks):
        rows = frame[frame["op"].isin(family.ops)]
        try:
            _check(rows, family, device)
        except ConfigError as error:
            raise ConfigError(f"{', '.join(facts['data'])}: {error}") from None
        parts = _by_kernel(rows) if engine else {"": rows}
        found = {kernel: _fitted(part, family, device, kernel, say) for kernel, part in parts.items()}
        fits = {kernel: fit for kernel, (fit, _) in found.items()}
        errors = {kernel: facts | told for kernel, (_, told) in found.items()}
        name = family.fits or family.name
        families[name] = fits if engine else fits[""]
        record[name] = errors if engine else errors[""]
    if not engine and "elementwise" not in record and "gemm" in families:
        families["elementwise"] = elementwise.borrow(families["gemm"])
    return Calibration(
        hardware=device.name,
        architecture=device.architecture,
        engine=engine,
        families={name: families[name] for name in sorted(families)},
        provenance={"families": {name: record[name] for name in sorted(record)}},
    )


def _check(rows: pd.DataFrame, family: Family, device: Hardware) -> None:
    """Raise ConfigError for rows that are no kernels of a family, or impossibly fast: most likely in another unit."""
    check_shapes(rows, family, np.ones(len(rows), dtype=bool))
    if family.composed:
        return
    share = float(np.median(rows["latency_us"].to_numpy(dtype=float) / roofline_kernels(rows, device).to_numpy()))
    if share < TOO_FAST:
        raise ConfigError(
            f"latency_us of family '{family.name}' is {share:.2g} times the least time by the datasheet of "
            f"'{device.name}' (median); expected microseconds"
        )


def _families_of(frame: pd.DataFrame, *, blocks: bool) -> list[Family]:
    """The families that are fitted to kernels of a frame, or to its whole blocks."""
    found = dict.fromkeys(family_of(str(op)) for op in frame["op"].unique())
    return [family for family in found if family.composed == blocks and (not blocks or family.fits)]


def _fitted(
    rows: pd.DataFrame, family: Family, device: Hardware, kernel: str, say: Progress
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The parameters of some rows, and their accuracy."""
    name = f"{family.name} {kernel}".rstrip()
    say(f"{name}: {len(rows)} points")
    parameters = family.module.fit(rows, device)
    fitted = predict_with(rows, device, parameters={family.fits or family.name: parameters}).to_numpy()
    whole = _error(fitted, rows["latency_us"].to_numpy(dtype=float))
    unseen = predicted_unseen(rows, family, device)
    judged = _judge(rows, fitted, unseen, family)
    say(f"{name}: median error {whole:.1%}, on held-out shapes {judged}")
    record = residual_record(rows, unseen, family)
    if record:
        parameters = parameters | {RESIDUALS: record}
    return parameters, {
        "points": len(rows),
        "median_error": whole,
        "held_out_median_error": judged,
    }


def _engines(frame: pd.DataFrame) -> pd.Series:
    """The calibration file that each row belongs to."""
    import pandas as pd

    if "framework" not in frame.columns:
        return pd.Series("", index=frame.index)
    return frame["framework"].map(engine_of)


def _by_kernel(rows: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The rows of each kernel, the most measured one first."""
    found = {kernel: rows[mask] for (_, kernel), mask in by_engine(rows, np.ones(len(rows), dtype=bool))}
    return dict(sorted(found.items(), key=lambda entry: (-len(entry[1]), entry[0])))


def calibrate_files(
    paths: Iterable[str | Path],
    hardware: str | Path | Hardware,
    out: Path | None = None,
    *,
    date: str | None = None,
    progress: Progress | None = None,
) -> list[Path]:
    """Calibrate from files, one calibration for the base and each engine whose kernels they hold; returns their paths.

    out: file to write (`NAME.calibration.json` next to the device's file by default); an engine's has its name within
    Raises ConfigError for unreadable files, HardwareError for an unknown device.
    """
    device = load_hardware(hardware)
    if out is None and device.path is None:
        raise ConfigError(f"hardware '{device.name}' comes from no file; give the path to write the calibration to")
    sources = [Source(name=Path(path).name, frame=_of_device(read_measurements(Path(path)), device)) for path in paths]
    frame = _joined(sources)
    written = {engine: beside(device.path, engine) if out is None else _named(out, engine)  # type: ignore[arg-type]
               for engine in sorted(_engines(frame).unique())}  # fmt: skip
    for blocks in (False, True):
        for engine, target in written.items():
            if _families_of(frame[_engines(frame) == engine], blocks=blocks):
                made = calibrate(sources, device, engine=engine, blocks=blocks, date=date, progress=progress)
                save_calibration(made, target)
    return list(written.values())


def _of_device(frame: pd.DataFrame, device: Hardware) -> pd.DataFrame:
    """The rows of one device, if a frame names the device of each row."""
    if "gpu" not in frame.columns:
        return frame
    mine = frame["gpu"].map({name: _is(device, str(name)) for name in frame["gpu"].unique()})
    return frame[mine] if mine.any() else frame


def _is(device: Hardware, name: str) -> bool:
    found = device_described(name)
    return found is not None and found.name == device.name


def _named(out: Path, engine: str) -> Path:
    """The file of an engine's calibration, from that of the base."""
    return out.with_name(out.name.removesuffix(SUFFIX) + suffix(engine)) if engine else out


def _joined(sources: list[Source]) -> pd.DataFrame:
    import pandas as pd

    if not sources:
        raise ConfigError("no measurements are given; expected at least one file")
    frame = pd.concat([source.frame for source in sources], ignore_index=True)
    known = frame["op"].isin([*FAMILY_OF, *COMPOSED_OF])
    if not known.any():
        family_of(str(frame["op"].iloc[0]) if len(frame) else "")
    return frame[known].reset_index(drop=True)


def _judge(rows: pd.DataFrame, whole: Array, unseen: Array, family: Family) -> dict[str, float]:
    """Median error on held-out shapes, of fits that never saw them, per number format (and op, if several)."""
    lines = [line for line in lines_of(rows, whole, unseen, {}, family) if line["size"] == ALL]
    several = len({line["op"] for line in lines}) > 1
    names = [f"{line['op']} {line['dtype']}".rstrip() if several else str(line["dtype"]) for line in lines]
    return {
        name: round(line["held_out"], 4)
        for name, line in zip(names, lines, strict=True)
        if np.isfinite(line["held_out"])
    }


def _error(predicted: Array, measured: Array) -> float:
    return round(float(np.median(np.abs(predicted / measured - 1.0))), 4)
