"""Calibration files: `hardware/NAME.calibration.json` next to `NAME.yaml`, read and written.

A file holds the fitted parameters per operator family and their provenance; `NAME.ENGINE.calibration.json` those
of another engine's kernels (`engines.py`). `basis.py` chooses the one that prices a device.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from graphsim.cost.parameters.coding import decoded, decoded_kernels
from graphsim.cost.surfaces.surface import Surface
from graphsim.files.catalog import folders, shipped_root
from graphsim.files.reading import Fields, load_mapping
from graphsim.files.written import write_text
from graphsim.hardware import Hardware

VERSION = 2
SUFFIX = ".calibration.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """Fitted parameters of one device.

    hardware, architecture: the device
    families: parameters per operator family, as the family's `fit` returned them; for an engine, one per kernel
    provenance: data files, number of points, date and error per family
    engine: the engine whose kernels they are for; "" for the base
    """

    hardware: str
    architecture: str
    families: Mapping[str, Mapping[str, Any]]
    provenance: Mapping[str, Any] = field(default_factory=dict)
    engine: str = ""


def beside(path: Path, engine: str = "") -> Path:
    """The path of the calibration that belongs to a device's file."""
    return path.with_name(path.stem + suffix(engine))


def suffix(engine: str) -> str:
    """What follows a device's name in the name of its calibration file."""
    return f".{engine}{SUFFIX}" if engine else SUFFIX


def calibration_path(hardware: Hardware, engine: str = "") -> Path | None:
    """The calibration file of a device: next to its own file, else in the catalog's folders; None if there is none."""
    if hardware.path is not None:
        path = beside(hardware.path, engine)
        return path if path.is_file() else None
    return shipped_path(hardware.name, engine)


def shipped_path(name: str, engine: str = "") -> Path | None:
    """The calibration file of a device of the catalog; None if there is none."""
    for folder in folders("hardware"):
        path = folder / (name + suffix(engine))
        if path.is_file():
            return path
    return None


def load_calibration(path: Path) -> Calibration:
    """The calibration that a file holds. Raises ConfigError naming file, field and what is allowed."""
    return _load(path, path.stat().st_mtime_ns) if path.is_file() else _load(path, 0)


@lru_cache(maxsize=64)
def _load(path: Path, changed_ns: int) -> Calibration:
    fields = Fields(load_mapping(path), str(path))
    version = fields.integer("version")
    if version != VERSION:
        fields.problem("version", f"is not supported; allowed: {VERSION} (run the calibration again)")
    engine = fields.text("engine", "")
    families = (decoded_kernels if engine else decoded)(fields.raw("families") or {}, f"{path}: families")
    calibration = Calibration(
        hardware=fields.text("hardware"),
        architecture=fields.text("architecture"),
        families=families if _is_shipped(path) else dict(families),  # a user's file is checked completely
        provenance=fields.raw("provenance") or {},
        engine=engine,
    )
    fields.finish()
    return calibration


def _is_shipped(path: Path) -> bool:
    """Whether it comes with graphsim, whose files are checked by tests."""
    return path.parent.absolute() == shipped_root() / "hardware"


def save_calibration(calibration: Calibration, path: Path) -> None:
    """Write a calibration: one line per table, keys in a fixed order, so that equal contents give equal bytes."""
    data = {
        "version": VERSION,
        "hardware": calibration.hardware,
        "architecture": calibration.architecture,
        **({"engine": calibration.engine} if calibration.engine else {}),
        "provenance": calibration.provenance,
        "families": calibration.families,
    }
    write_text(path, _text(data) + "\n")


def _text(value: Any, indent: str = "") -> str:
    """JSON with mappings spread over lines and lists kept on one."""
    if isinstance(value, Surface):
        value = value.to_json()
    if isinstance(value, Mapping) and value and not (indent and all(_is_plain(entry) for entry in value.values())):
        inner = indent + " "
        entries = (f"{inner}{json.dumps(str(key))}: {_text(entry, inner)}" for key, entry in value.items())
        return "{\n" + ",\n".join(entries) + f"\n{indent}}}"
    if isinstance(value, list) and any(isinstance(entry, Mapping) for entry in value):
        inner = indent + " "
        return "[\n" + ",\n".join(inner + _compact(entry) for entry in value) + f"\n{indent}]"
    return _compact(value)


def _is_plain(value: Any) -> bool:
    return isinstance(value, str | int | float | bool) or value is None


def _compact(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)
