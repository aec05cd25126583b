"""The range in which the time of a measured or hypothetical kernel is expected, for rows in the reference schema."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from graphsim.cost.families.registry import Family
from graphsim.cost.kernels import by_engine, by_family, predict_with
from graphsim.cost.parameters.basis import Basis, basis
from graphsim.cost.parameters.borrowed import record_of
from graphsim.cost.parameters.engines import KernelTable
from graphsim.cost.residuals import ALL, Record, beyond, coverage_of, kind_of, log_residuals, score_of
from graphsim.cost.surfaces.tables import Array
from graphsim.files.frameworks import ANY
from graphsim.hardware import Hardware, load_hardware

if TYPE_CHECKING:
    import pandas as pd


def kernel_intervals(
    frame: pd.DataFrame,
    hardware: str | Path | Mapping[str, Any] | Hardware,
    coverage: float = 0.8,
    *,
    own: bool = True,
    kin: bool = True,
    parameters: Mapping[str, Any] | None = None,
) -> pd.DataFrame:
    """`latency_us` as from `predict_kernels`, with `low_us` and `high_us`, for each row; the index is the frame's.

    coverage: share of never-measured kernels that should lie between low_us and high_us
    own, kin: False ignores the device's own calibration, or those of other devices of its generation
    parameters: fitted parameters by family with their residuals, instead of those of a calibration The bounds are NaN
    where no residuals are recorded, as for the bare roofline. Raises ConfigError as `predict_kernels` does, and for a
    coverage that the residuals do not support.
    """
    import pandas as pd

    device, coverage = load_hardware(hardware), coverage_of(coverage)
    predicted = predict_with(frame, device, own=own, kin=kin, parameters=parameters).to_numpy()
    ends = np.full((2, len(frame)), np.nan)
    for family, rows in by_family(frame):
        for (engine, kernel), mine in by_engine(frame, rows):
            name = family.fits or family.name
            table = KernelTable(engine=engine, orders=((name, ANY, (kernel,)),))
            given = Basis(origin="given", parameters=parameters[name]) if parameters and name in parameters else None
            found = given or basis(device, name, table, own=own, kin=kin)
            record = record_of(device, name, found, engine)
            if record is not None:
                ends[:, mine] = interval_us(frame[mine], predicted[mine], record, family, coverage)
    return pd.DataFrame({"latency_us": predicted, "low_us": ends[0], "high_us": ends[1]}, index=frame.index)


def interval_us(rows: pd.DataFrame, predicted_us: Array, record: Record, family: Family, coverage: float = 0.8) -> Any:
    """The range in which the time of each row is expected: an array of low ends, one of high ends.

    rows: in the reference schema, of kernels that the record is of
    predicted_us: their estimates
    """
    ends = score_of(np.array([(1.0 - coverage) / 2.0, (1.0 + coverage) / 2.0]))
    found = np.full((2, len(rows)), np.nan)
    if family.composed:
        whole = np.asarray(predicted_us, dtype=float)
        return whole * np.exp(log_residuals(record, ALL, 1e-6 * whole, ends))
    for places, shape in shapes_of(rows, family):
        predicted = np.asarray(predicted_us, dtype=float)[places]
        far = beyond(record, shape)
        found[:, places] = predicted * np.exp(log_residuals(record, kind_of(shape), 1e-6 * predicted, ends, far))
    return found


def shapes_of(rows: pd.DataFrame, family: Family) -> Iterator[tuple[Any, Any]]:
    """Positions of the rows that one shape describes, and the shape."""
    keys = [*family.groups, *(name for name in family.hints if name in rows.columns)]
    codes = rows.groupby(keys, sort=False, dropna=False).ngroup().to_numpy()
    for code in range(codes.max() + 1 if len(codes) else 0):
        places = np.flatnonzero(codes == code)
        yield places, family.module.shape_of(rows.iloc[places])
