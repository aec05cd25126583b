"""Latency of measured or hypothetical kernels in the reference schema, one row each.

`predict_kernels` passes each op to its family. A family uses the device's calibration, else its generation's, else the
bare roofline, and `kernel_origins` says which. Columns `framework` and `kernel`, where a frame has them, say whose
kernel a row is; without them it is vLLM's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from graphsim.cost.families.registry import COMPOSED_OF, FAMILIES, FAMILY_OF, Family, family_of
from graphsim.cost.parameters.basis import Basis, basis
from graphsim.cost.parameters.engines import KernelTable, engine_of
from graphsim.cost.surfaces.tables import Array
from graphsim.errors import ConfigError
from graphsim.files.frameworks import ANY
from graphsim.hardware import Hardware, load_hardware

if TYPE_CHECKING:
    import pandas as pd

CHUNK_ROWS = 16_384
"""Rows priced at a time, so that intermediate arrays stay in the processor's cache."""


UNNAMED = "default"
"""Name of an engine's kernel whose rows do not name it."""


def predict_kernels(frame: pd.DataFrame, hardware: str | Path | Mapping[str, Any] | Hardware) -> pd.Series:
    """`latency_us` for each row of a frame in the reference schema; the index is the frame's.

    Raises ConfigError if `frame` is not a DataFrame, for an unknown op or dtype, and for missing or non-positive
    columns.
    """
    return predict_with(frame, load_hardware(hardware))


def predict_with(
    frame: pd.DataFrame,
    hardware: Hardware,
    *,
    own: bool = True,
    kin: bool = True,
    parameters: Mapping[str, Any] | None = None,
) -> pd.Series:
    """`predict_kernels` with a choice of calibrations.

    own, kin: False ignores the device's own calibration, or those of other devices of its generation
    parameters: fitted parameters by family, in place of those of a calibration
    """
    import pandas as pd

    families = by_family(frame)
    latency_us = np.zeros(len(frame))
    for family, rows in families:
        for (engine, kernel), mine in by_engine(frame, rows):
            needed = FAMILIES if family.composed else (family.name,)
            table = KernelTable(engine=engine, orders=tuple((name, ANY, (kernel,)) for name in needed))
            found = {
                name: Basis(origin="given", parameters=parameters[name])
                if parameters and name in parameters
                else basis(hardware, name, table, own=own, kin=kin)
                for name in needed
            }
            for places, part in _groups(frame, family, mine):
                latency_us[places] = 1e6 * _price(part, family, hardware, found)
    return pd.Series(latency_us, index=frame.index, name="latency_us")


def roofline_kernels(frame: pd.DataFrame, hardware: Hardware) -> pd.Series:
    """`latency_us` of the bare datasheet roofline for each row; nan for whole blocks."""
    import pandas as pd

    families = by_family(frame)
    latency_us = np.zeros(len(frame))
    for family, rows in families:
        for places, part in _groups(frame, family, rows):
            latency_us[places] = np.nan if family.composed else 1e6 * _price(part, family, hardware, {})
    return pd.Series(latency_us, index=frame.index, name="latency_us")


def kernel_origins(ops: Iterable[str], hardware: Hardware) -> dict[str, str]:
    """The origin of each op's estimate: `calibrated`, `scaled from …` or `roofline`."""
    return {op: basis(hardware, "gemm" if op in COMPOSED_OF else family_of(op).name).origin for op in ops}


def by_family(frame: pd.DataFrame) -> list[tuple[Family, Any]]:
    """The rows of each family. Raises ConfigError unless it is a DataFrame with known ops."""
    if not hasattr(frame, "columns"):
        raise ConfigError(
            f"kernels are given as a {type(frame).__name__}; expected a pandas DataFrame with one row per kernel"
        )
    if "op" not in frame.columns:
        known = ", ".join(sorted(FAMILY_OF | COMPOSED_OF))
        raise ConfigError(f"column 'op' is missing; it names the kernel of each row: {known}")
    ops = frame["op"].to_numpy()
    families: dict[Family, list[str]] = {}
    for op in frame["op"].unique():
        families.setdefault(family_of(str(op)), []).append(op)
    return [(family, np.isin(ops, names)) for family, names in families.items()]


def by_engine(frame: pd.DataFrame, rows: Any) -> Iterable[tuple[tuple[str, str], Any]]:
    """Engine and kernel of the chosen rows, and a mask for each: "" and "" for those of the base."""
    if "framework" not in frame.columns:
        if rows.any():
            yield ("", ""), rows
        return
    engines = frame["framework"].map(engine_of).to_numpy()
    named = frame["kernel"].fillna(UNNAMED).astype(str).to_numpy() if "kernel" in frame.columns else UNNAMED
    kernels = np.where(engines == "", "", named)
    for engine, kernel in dict.fromkeys(zip(engines[rows], kernels[rows], strict=True)):
        yield (str(engine), str(kernel)), rows & (engines == engine) & (kernels == kernel)


def _groups(frame: pd.DataFrame, family: Family, rows: Any) -> Iterable[tuple[Any, pd.DataFrame]]:
    """Positions and rows of each set of rows that one shape can describe, in chunks."""
    check_shapes(frame, family, rows)
    places = np.flatnonzero(rows)
    keys = [*family.groups, *(name for name in family.hints if name in frame.columns)]
    codes = frame[keys].iloc[places].groupby(keys, sort=False, dropna=False).ngroup().to_numpy()
    order = np.argsort(codes, kind="stable")
    for run in np.split(places[order], np.flatnonzero(np.diff(codes[order])) + 1):
        for chunk in np.array_split(run, max(1, -(-len(run) // CHUNK_ROWS))):
            if len(chunk):
                yield chunk, frame.iloc[chunk]


def check_shapes(frame: pd.DataFrame, family: Family, rows: Any) -> None:
    """Raise ConfigError unless the chosen rows have all columns of their family, with finite numbers above 0."""
    needed = (*family.groups, *family.numbers)
    missing = [name for name in needed if name not in frame.columns]
    if missing:
        raise ConfigError(
            f"column{'s' if len(missing) > 1 else ''} {', '.join(missing)} missing; "
            f"rows of family '{family.name}' need {', '.join(needed)}"
        )
    for name in family.numbers:
        try:
            values = frame[name].to_numpy()[rows].astype(float)
        except (TypeError, ValueError):
            raise ConfigError(f"column {name} holds a value that is not a number; expected numbers above 0") from None
        bad = ~((values > 0) & np.isfinite(values))
        if bad.any():
            place = frame.index[np.flatnonzero(rows)[np.argmax(bad)]]
            raise ConfigError(f"column {name} is {values[bad][0]} in row {place}; expected a finite number above 0")


def _price(rows: pd.DataFrame, family: Family, hardware: Hardware, found: Mapping[str, Basis]) -> Array:
    module = family.module
    if family.composed:
        parameters = {name: entry.parameters or {} for name, entry in found.items()}
        return np.asarray(module.block_s(rows, hardware, parameters), dtype=float)
    shape = module.shape_of(rows)
    fitted = found[family.name].parameters if found else None
    if fitted is None:
        return np.asarray(module.roofline_s(hardware, shape), dtype=float)
    return np.asarray(module.latency_s(fitted, hardware, shape), dtype=float)
