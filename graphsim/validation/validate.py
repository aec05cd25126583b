"""Errors of predictions, per device, op, number format and size, compared with those of the plain roofline."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from graphsim.calibration.fit import read_measurements
from graphsim.calibration.held_out import ALL, THIN, THIN_NAME, Progress, covered, held_out_errors, thin_products
from graphsim.calibration.uncertainty import crossed_interval
from graphsim.cost.families.registry import COMPOSED_OF, FAMILY_OF, family_of
from graphsim.cost.kernel_intervals import kernel_intervals
from graphsim.cost.kernels import by_engine, roofline_kernels
from graphsim.cost.parameters.basis import basis
from graphsim.cost.parameters.engines import KernelTable
from graphsim.errors import ConfigError
from graphsim.hardware import Hardware, device_described, load_hardware
from graphsim.validation.residuals import residuals

if TYPE_CHECKING:
    import pandas as pd

SIZES = ((10.0, "below 10 us"), (100.0, "10 to 100 us"), (1000.0, "0.1 to 1 ms"), (np.inf, "above 1 ms"))
"""Classes by measured latency, upper bound in microseconds."""


def validate_kernels(
    frame: pd.DataFrame,
    hardware: str | Path | Mapping[str, Any] | Hardware,
    *,
    own: bool = True,
    parameters: Mapping[str, Any] | None = None,
) -> pd.DataFrame:
    """Errors of `predict_kernels` on measured rows of one device, one line per op, dtype and size class.

    Columns: hardware, engine and kernel ("" for the base), origin, op, dtype, size, rows, then as fractions the
    median, mean and 90th percentile of |predicted / measured - 1|, the bias (median of predicted / measured - 1), the
    roofline's median error, and `coverage` and `width` of intervals of 80 % (`covered`; nan without residuals).
    own: False ignores the device's own calibration
    parameters: fitted parameters by family, in place of any calibration
    Raises ConfigError for missing columns or unknown ops.
    """
    import pandas as pd

    device = load_hardware(hardware)
    if "latency_us" not in frame.columns:
        raise ConfigError("column latency_us is missing; validation needs the measured latency")
    measured = frame["latency_us"].to_numpy(dtype=float)
    found = kernel_intervals(frame, device, own=own, parameters=parameters)
    predicted, ends = found["latency_us"].to_numpy(), found[["low_us", "high_us"]].to_numpy().T
    off = predicted / measured - 1.0
    bare = np.abs(roofline_kernels(frame, device).to_numpy() / measured - 1.0)
    lines = []
    for (engine, kernel), mine in by_engine(frame, np.ones(len(frame), dtype=bool)):
        table = KernelTable(engine=engine)
        for (op, dtype), part in _numbered(frame)[mine].groupby(["op", "dtype"], sort=True, dropna=False):
            places = part["place"].to_numpy()
            origin = "given" if parameters else basis(device, family_of(str(op)).name, table, own=own).origin
            head = {"hardware": device.name, "engine": engine, "kernel": kernel, "origin": origin}
            for size, inside in _sizes(part, measured[places]):
                chosen = places[inside]
                if len(chosen):
                    line = head | {"op": op, "dtype": dtype, "size": size} | _errors(off[chosen], bare[chosen])
                    lines.append(line | covered(measured[chosen], predicted[chosen], ends[:, chosen]))
    return pd.DataFrame(lines)


def validate_files(
    paths: Iterable[str | Path], hardware: str | Path | None = None, *, own: bool = True
) -> pd.DataFrame:
    """`validate_kernels` over files; the device is `hardware`, or by default the one in each row's column `gpu`."""
    import pandas as pd

    tables = [validate_kernels(rows, device, own=own) for device, rows in rows_by_device(paths, hardware)]
    return pd.concat(tables, ignore_index=True)


def file_residuals(
    paths: Iterable[str | Path], hardware: str | Path | None = None, *, own: bool = True
) -> pd.DataFrame:
    """`residuals` over files; the device is `hardware`, or by default the one in each row's column `gpu`."""
    import pandas as pd

    tables = [residuals(rows, device, own=own) for device, rows in rows_by_device(paths, hardware)]
    return pd.concat(tables, ignore_index=True)


def validate_held_out(
    paths: Iterable[str | Path],
    hardware: str | Path | None = None,
    *,
    families: Iterable[str] | None = None,
    progress: Progress | None = None,
) -> pd.DataFrame:
    """`held_out_errors` over files, with intervals by records of the other folds.

    The device is `hardware`, or by default the one in each row's column `gpu`.
    """
    import pandas as pd

    chosen = None if families is None else list(families)
    tables = [
        held_out_errors(rows, device, families=chosen, progress=progress, interval=crossed_interval)
        for device, rows in rows_by_device(paths, hardware)
    ]
    return pd.concat(tables, ignore_index=True)


def rows_by_device(
    paths: Iterable[str | Path], hardware: str | Path | None = None
) -> Iterator[tuple[Hardware, pd.DataFrame]]:
    """The rows of known ops in each file, by device. Raises ConfigError if a file states no device."""
    for path in map(Path, paths):
        frame = read_measurements(path)
        if hardware is None and "gpu" not in frame.columns:
            raise ConfigError(f"{path}: column gpu missing; say for which hardware the rows are")
        parts = [(hardware, frame)] if hardware is not None else list(frame.groupby("gpu", sort=True))
        for name, part in parts:
            known = part[part["op"].isin([*FAMILY_OF, *COMPOSED_OF])]
            if known.empty:
                family_of(str(part["op"].iloc[0]))
            yield load_hardware(name if hardware is not None else hardware_name(str(name))), known  # type: ignore[arg-type]


def hardware_name(gpu: str) -> str:
    """The catalog's name of a device in a table, or the table's own name if the catalog has none."""
    found = device_described(gpu)
    return found.name if found else gpu


def _numbered(frame: pd.DataFrame) -> pd.DataFrame:
    names = [name for name in ("op", "dtype", "n", "k") if name in frame.columns]
    dtypes = {} if "dtype" in frame.columns else {"dtype": ""}
    return frame[names].assign(place=np.arange(len(frame)), **dtypes)


def _sizes(part: pd.DataFrame, measured_us: Any) -> list[tuple[str, Any]]:
    """Row masks by name: all rows, LoRA-shaped GEMMs, and the classes by latency."""
    classes: list[tuple[str, Any]] = [(ALL, np.ones(len(part), dtype=bool))]
    if part["op"].iloc[0] == "gemm":
        thin = thin_products(part)
        classes += [(THIN_NAME, thin), (f"n and k above {THIN}", ~thin)]
    lower = 0.0
    for upper, name in SIZES:
        classes.append((name, (measured_us >= lower) & (measured_us < upper)))
        lower = upper
    return classes


def _errors(off: Any, bare: Any) -> dict[str, float]:
    size = np.abs(off)
    return {
        "rows": len(off),
        "median": float(np.median(size)), "mean": float(size.mean()), "p90": float(np.quantile(size, 0.9)),
        "bias": float(np.median(off)), "roofline_median": float(np.median(bare)),
    }  # fmt: skip
