"""Calibration files: `hardware/NAME.calibration.json` beside `NAME.yaml`, and which one serves a device.

A file holds the fitted parameters per operator family and where they come from. A device without
one borrows those of its architecture generation (`hardware/generations.json`): the constants are
multiples of datasheet numbers, so they scale with the device. A generation without measurements takes
the mean of several others, with half of their correction surfaces (`cost/families/blend.py`). Collectives are
borrowed from a device that is wired alike.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from graphsim.cost.families.blend import Blend
from graphsim.cost.interconnect import node_link
from graphsim.cost.parameters.coding import decoded
from graphsim.cost.surfaces.surface import Surface
from graphsim.errors import ConfigError
from graphsim.files.catalog import folders
from graphsim.files.reading import Fields, load_mapping
from graphsim.hardware import Hardware, load_hardware

VERSION = 2
SUFFIX = ".calibration.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """Fitted parameters of one device.

    hardware, architecture: whose they are
    families: parameters per operator family, as the family's `fit` returned them
    provenance: data files, points, date and achieved error per family
    """

    hardware: str
    architecture: str
    families: Mapping[str, Mapping[str, Any]]
    provenance: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Basis:
    """What an estimate rests on: `calibrated`, `scaled from h100-sxm (hopper)` (or several) or `roofline`.

    parameters: of the family, from whoever lends them; None for the bare roofline
    """

    origin: str
    parameters: Mapping[str, Any] | None = None


def beside(path: Path) -> Path:
    """Where the calibration of a device's file lies."""
    return path.with_name(path.stem + SUFFIX)


def calibration_path(hardware: Hardware) -> Path | None:
    """The calibration file of a device: beside its own file, else in the catalog's folders; None if there is none."""
    if hardware.path is not None:
        path = beside(hardware.path)
        return path if path.is_file() else None
    return _shipped_path(hardware.name)


def _shipped_path(name: str) -> Path | None:
    for folder in folders("hardware"):
        path = folder / (name + SUFFIX)
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
    calibration = Calibration(
        hardware=fields.text("hardware"),
        architecture=fields.text("architecture"),
        families=decoded(fields.raw("families") or {}, f"{path}: families"),
        provenance=fields.raw("provenance") or {},
    )
    fields.finish()
    return calibration


def save_calibration(calibration: Calibration, path: Path) -> None:
    """Write a calibration: one line per table, keys in a fixed order, the same bytes for the same content."""
    data = {
        "version": VERSION,
        "hardware": calibration.hardware,
        "architecture": calibration.architecture,
        "provenance": calibration.provenance,
        "families": calibration.families,
    }
    path.write_text(_text(data) + "\n", encoding="utf-8")


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


def basis(hardware: Hardware, family: str, *, own: bool = True, kin: bool = True) -> Basis:
    """Which fitted parameters price a family on a device.

    own: False ignores the device's own calibration, and so shows how it would fare unmeasured
    kin: False ignores those of its generation's other devices too
    """
    path = calibration_path(hardware)
    if own and path is not None:
        calibration = load_calibration(path)
        if family in calibration.families:
            return Basis(origin="calibrated", parameters=calibration.families[family])
    wired = _wired_alike(hardware, family)
    if wired:
        return Basis(
            origin=f"scaled from {wired} ({node_link(hardware).topology})", parameters=_family_of(wired, family)
        )
    name = _nearest(hardware, hardware.architecture, family) if kin else ""
    if name:
        return Basis(origin=f"scaled from {name} ({hardware.architecture})", parameters=_family_of(name, family))
    return _from_others(hardware, family)


def _wired_alike(hardware: Hardware, family: str) -> str:
    """Who lends the collectives of a device whose links are of another kind than its generation's; "" for no one.

    How fast they are says the wiring, not the chip: libraries choose algorithms and protocols by it.
    """
    if family != "collectives" or not hardware.links:
        return ""
    alike = _alike_by_topology().get(node_link(hardware).topology, ())
    return next((name for name in alike if name != hardware.name and _family_of(name, family)), "")


def _from_others(hardware: Hardware, family: str) -> Basis:
    """The nearest device of each generation that serves, blended."""
    lenders = _lent(hardware, family)
    if not lenders:
        return Basis(origin="roofline")
    return Basis(origin=f"scaled from {', '.join(lenders)}", parameters=Blend(list(lenders.values())))


def _lent(hardware: Hardware, family: str) -> dict[str, dict[str, Any]]:
    """What each generation that stands in for another one lends of a family, by whose it is."""
    rules = _neighbours(hardware.architecture)
    usual = rules.get(family, rules.get("", ()))
    special = {key.partition(".")[2]: names for key, names in rules.items() if key.startswith(f"{family}.")}
    found: dict[str, dict[str, Any]] = {}
    for one in dict.fromkeys([*usual, *(name for names in special.values() for name in names)]):
        name = _nearest(hardware, one, family)
        parameters = _family_of(name, family) or {}
        found[f"{name} ({one})"] = {key: part for key, part in parameters.items() if one in special.get(key, usual)}
    return {name: parameters for name, parameters in found.items() if parameters}


def _nearest(hardware: Hardware, architecture: str, family: str) -> str:
    """The measured device of a generation that is most like another one; "" if there is none."""
    found = [name for name in _devices(architecture) if name != hardware.name and _family_of(name, family)]
    return min(found, key=lambda name: _distance(hardware, load_hardware(name)), default="")


def _distance(one: Hardware, other: Hardware) -> float:
    """How unlike two devices are: the sum of the logarithms of the ratios of what drives kernels and hosts."""
    pairs = [
        (one.memory_bytes_per_s, other.memory_bytes_per_s),
        (one.cores, other.cores),
        (one.clock_hz, other.clock_hz),
        (one.host_link.bytes_per_s, other.host_link.bytes_per_s),
        (max(one.flops_per_s.values()), max(other.flops_per_s.values())),
    ]
    return sum(abs(math.log(float(np.mean(a)) / float(np.mean(b)))) for a, b in pairs)


def _family_of(name: str, family: str) -> Mapping[str, Any] | None:
    path = _shipped_path(name)
    return load_calibration(path).families.get(family) if path else None


Generations = dict[str, tuple[tuple[str, ...], dict[str, tuple[str, ...]]]]


def _generations() -> Generations:
    found = _generations_path()
    return _read_generations(found) if found else {}


def _alike_by_topology() -> dict[str, tuple[str, ...]]:
    """For each topology of a node, the measured devices whose collectives stand for others that are wired so."""
    found = _generations_path()
    return _read_wiring(found) if found else {}


def _generations_path() -> Path | None:
    paths = (folder / "generations.json" for folder in folders("hardware"))
    return next((path for path in paths if path.is_file()), None)


@lru_cache(maxsize=8)
def _read_wiring(path: Path) -> dict[str, tuple[str, ...]]:
    try:
        return {str(topology): tuple(names) for topology, names in load_mapping(path).get("wiring", {}).items()}
    except (TypeError, AttributeError) as error:
        raise ConfigError(f"{path}: 'wiring' names devices for each topology ({error})") from None


@lru_cache(maxsize=8)
def _read_generations(path: Path) -> Generations:
    try:
        return {
            str(name): (tuple(entry["devices"]), {key: tuple(names) for key, names in entry["lenders"].items()})
            for name, entry in load_mapping(path)["generations"].items()
        }
    except (KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{path}: every generation needs 'devices' and 'lenders' ({error})") from None


def _devices(architecture: str) -> tuple[str, ...]:
    return _generations().get(architecture, ((), {}))[0]


def _neighbours(architecture: str) -> dict[str, tuple[str, ...]]:
    return _generations().get(architecture, ((), {}))[1]
