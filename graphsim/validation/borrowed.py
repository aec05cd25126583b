"""The error of borrowed constants: residual records of every measured device, priced as if it had not been measured.

Each device is priced once without its own calibration (another device of its generation is the reference), and once
without those of its generation (`unmeasured.py` gives the same errors as tables). Records are in
`hardware/residuals.json`
(`cost/parameters/borrowed.py`); every device counts equally, regardless of the number of measured kernels.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from graphsim.calibration.held_out import Progress, covered
from graphsim.calibration.uncertainty import common_part, described, groups_apart, known, quantiles, shapes_apart
from graphsim.cost.families.registry import Family
from graphsim.cost.kernel_intervals import interval_us
from graphsim.cost.kernels import by_engine, by_family, predict_with
from graphsim.cost.parameters.basis import basis
from graphsim.cost.parameters.borrowed import BASE, RELATIONS, SIBLING, relation_of
from graphsim.cost.parameters.engines import KernelTable
from graphsim.files.written import write_text
from graphsim.hardware import Hardware
from graphsim.validation.unmeasured import ERRATIC
from graphsim.validation.validate import rows_by_device

if TYPE_CHECKING:
    import pandas as pd

MOST_ROWS = 6000
"""Largest number of rows per device and family, evenly spaced; enough for all quantiles."""

ABOUT = (
    "Quantiles of log(measured / predicted) of kernels on measured devices that were priced as if they were "
    "unmeasured: 'sibling', from another device of the generation; 'generation', from other generations. Made by "
    "graphsim validate unmeasured --record."
)

Place = tuple[str, str, str]
"""Relation, engine and family."""


def borrowed_rows(
    paths: Iterable[str | Path], hardware: str | Path | None = None, *, progress: Progress | None = None
) -> dict[Place, list[tuple[Family, pd.DataFrame]]]:
    """For each relation, engine and family, the rows of each device, with times from borrowed constants.

    Columns: `borrowed_us` (that time), `architecture` (the device's generation) and `one`, the group whose errors are
    independent of other groups: the device among siblings, the generation if other generations are the reference.
    """
    found: dict[Place, list[tuple[Family, pd.DataFrame]]] = {}
    for device, frame in rows_by_device(paths, hardware):
        if progress:
            progress(f"{device.name}: {len(frame)} points")
        for engine, family, rows in _parts(frame, device):
            for relation in RELATIONS:
                kin = relation == SIBLING
                if _relation(device, family, engine, kin) != relation:
                    continue
                part = rows.assign(
                    borrowed_us=predict_with(rows, device, own=False, kin=kin).to_numpy(),
                    architecture=device.architecture,
                    one=device.name if kin else device.architecture,
                )
                found.setdefault((relation, engine, family.name), []).append((family, part))
    return found


def _parts(frame: pd.DataFrame, device: Hardware) -> Iterator[tuple[str, Family, pd.DataFrame]]:
    """Rows by engine and family of kernels, at most MOST_ROWS of each; whole blocks are made of several kernels."""
    architecture, _ = ERRATIC
    for family, rows in by_family(frame):
        if family.composed:
            continue
        if device.architecture == architecture and family.name in ("attention", "moe"):
            continue
        masks: dict[str, Any] = {}
        for (engine, _), mine in by_engine(frame, rows):
            masks[engine] = masks.get(engine, False) | mine
        for engine, mine in masks.items():
            part = frame[mine]
            if not part.empty:
                yield engine or BASE, family, part.iloc[:: max(1, len(part) // MOST_ROWS)]


def _relation(device: Hardware, family: Family, engine: str, kin: bool) -> str:
    table = KernelTable(engine="" if engine == BASE else engine)
    found = basis(device, family.name, table, own=False, kin=kin)
    return relation_of(device, found.origin) if found.parameters is not None else ""


def borrowed_record(parts: list[tuple[Family, pd.DataFrame]]) -> dict[str, Any]:
    """The residual record of rows of several devices; empty if there are none."""
    import pandas as pd

    if not parts:
        return {}
    family, rows = parts[0][0], pd.concat([part for _, part in parts], ignore_index=True)
    rows, borrowed_us, residual = known(rows, rows["borrowed_us"].to_numpy())
    if rows.empty:
        return {}
    kinds, _ = described(rows, family)
    devices = rows["one"].to_numpy()
    common = {
        kind: round(common_part(residual[kinds == kind], devices[kinds == kind]), 3) for kind in sorted(set(kinds))
    }
    shapes = shapes_apart(rows, family)

    def apart(chosen: Any) -> float:
        return groups_apart(residual[chosen], devices[chosen], shapes(chosen))

    return {
        "rows": len(rows), "apart": len(np.unique(devices)), "common": common,
        "quantiles": quantiles(residual, kinds, borrowed_us, apart),
    }  # fmt: skip


def borrowed_coverage(found: dict[Place, list[tuple[Family, pd.DataFrame]]]) -> pd.DataFrame:
    """Share of rows within intervals from residuals of other generations, by relation, engine and family.

    Columns: without (as in `unmeasured_errors`), engine, family, devices, rows, coverage, width (see `covered`): nan
    if only one generation has such rows.
    """
    import pandas as pd

    lines = []
    for (relation, engine, name), parts in found.items():
        measured, predicted, ends = [], [], []
        for family, part in parts:
            own = part["architecture"].iloc[0]
            record = borrowed_record([other for other in parts if other[1]["architecture"].iloc[0] != own])
            rows, borrowed_us, _ = known(part, part["borrowed_us"].to_numpy())
            if record and len(rows):
                measured.append(rows["latency_us"].to_numpy(dtype=float))
                predicted.append(borrowed_us)
                ends.append(interval_us(rows, borrowed_us, record, family))
        line: dict[str, Any] = {
            "without": "device" if relation == SIBLING else "generation", "engine": engine, "family": name,
            "devices": len(parts), "rows": sum(map(len, measured)),
        }  # fmt: skip
        if measured:
            line |= covered(np.concatenate(measured), np.concatenate(predicted), np.concatenate(ends, axis=1))
        lines.append(line)
    return pd.DataFrame(lines)


def save_borrowed(
    found: dict[Place, list[tuple[Family, pd.DataFrame]]], path: Path, *, date: str | None = None
) -> None:
    """Write the residual records of borrowed constants in the format of `hardware/residuals.json`.

    One device or generation alone says nothing about the errors of others.
    """
    records: dict[str, dict[str, dict[str, Any]]] = {}
    for (relation, engine, family), parts in sorted(found.items()):
        if (record := borrowed_record(parts)) and record["apart"] > 1:
            records.setdefault(relation, {}).setdefault(engine, {})[family] = record
    data = {"about": ABOUT, "date": date or datetime.date.today().isoformat(), **records}
    write_text(path, _text(data) + "\n")


def _text(value: Any, indent: str = "") -> str:
    """JSON with mappings spread over lines and lists kept on one."""
    if isinstance(value, dict) and value:
        inner = indent + " "
        entries = (f"{inner}{json.dumps(key)}: {_text(entry, inner)}" for key, entry in value.items())
        return "{\n" + ",\n".join(entries) + f"\n{indent}}}"
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)
