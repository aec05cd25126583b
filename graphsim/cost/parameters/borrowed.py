"""The residuals that determine a device's uncertainty: its own, or those of devices evaluated as unmeasured.

A measured device's residuals are in its calibration, next to the parameters. Borrowed parameters have larger errors:
`hardware/residuals.json` holds, for each engine and family, the residuals of every measured device priced as if it had
no calibration (`sibling`: the reference is another device of its generation), and as if its generation had none
(`generation`: other generations). `graphsim validate unmeasured --record` writes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from graphsim.cost.families.gemm import CAPTURED
from graphsim.cost.parameters.basis import SHARED, Basis
from graphsim.cost.residuals import RESIDUALS, Record, check_record, with_captured
from graphsim.files.catalog import folders
from graphsim.files.reading import load_mapping
from graphsim.hardware import Hardware

FILE = "residuals.json"
SIBLING, GENERATION = "sibling", "generation"
RELATIONS = (SIBLING, GENERATION)
CAPTURED_BY = SHARED["gemm", CAPTURED][0]
BASE = "base"
"""The name of the base's kernels, vLLM's and NCCL's, among engines."""


def record_of(hardware: Hardware, family: str, found: Basis, engine: str = "") -> Record | None:
    """The residuals of a family's estimates on a device, priced from `found`; None where none are recorded.

    engine: whose kernels they are, of ENGINES; an engine without residuals has the base's
    """
    if found.parameters is None:
        return None
    if found.origin in ("calibrated", "given"):
        own: Record | None = found.parameters.get(RESIDUALS)
        return own
    by_engine = borrowed_records().get(relation_of(hardware, found.origin), {})
    record = by_engine.get(engine or BASE, {}).get(family) or by_engine.get(BASE, {}).get(family)
    theirs = by_engine.get(CAPTURED_BY, {}).get(family)
    return with_captured(record, theirs) if record and theirs and family == "gemm" else record


def relation_of(hardware: Hardware, origin: str) -> str:
    """The relation of the reference: one device of the same generation, or other generations."""
    one = origin.endswith(f"({hardware.architecture})") and "," not in origin
    return SIBLING if one else GENERATION


def borrowed_records() -> Mapping[str, Mapping[str, Mapping[str, Record]]]:
    """The residuals of borrowed parameters, by relation, engine and family; none if no folder has the file."""
    paths = (folder / FILE for folder in folders("hardware"))
    path = next((path for path in paths if path.is_file()), None)
    return _read(path, path.stat().st_mtime_ns) if path else {}


@lru_cache(maxsize=8)
def _read(path: Path, changed_ns: int) -> Mapping[str, Mapping[str, Mapping[str, Record]]]:
    data: Mapping[str, Any] = load_mapping(path)
    return {
        relation: {
            engine: {
                family: check_record(record, f"{path}: {relation}.{engine}.{family}")
                for family, record in records.items()
            }
            for engine, records in data.get(relation, {}).items()
        }
        for relation in RELATIONS
    }
