"""Fitted parameters as a calibration file holds them, with every mistake reported in one sentence."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from graphsim.cost.families.registry import FAMILIES
from graphsim.cost.parameters.lazily import Lazily
from graphsim.cost.residuals import RESIDUALS, check_record
from graphsim.cost.surfaces.surface import Surface
from graphsim.errors import ConfigError, choices_text

PARTS = {"attention": ("single", "split")}
"""The additional fits that a family's fit may contain."""


def decoded(families: Any, where: str) -> Mapping[str, dict[str, Any]]:
    """The parameters of every family, surfaces ready to evaluate; each family is read on demand.

    Raises ConfigError for invalid contents: an unknown name, a constant that is missing or not above 0, a table that
    does not fit its knots. `where` begins the message.
    """
    parts = dict(_named(families, tuple(FAMILIES), where))
    return Lazily(parts, lambda name: _below(parts[name], (name,), f"{where}.{name}"))


def decoded_kernels(families: Any, where: str) -> Mapping[str, dict[str, dict[str, Any]]]:
    """The parameters of every family and kernel of an engine, read and checked as by `decoded`."""
    parts = dict(_named(families, tuple(FAMILIES), where))

    def kernels(name: str) -> dict[str, dict[str, Any]]:
        here = f"{where}.{name}"
        return {
            kernel: _below(fits, (name,), f"{here}.{kernel}") for kernel, fits in _mapping(parts[name], here).items()
        }

    return Lazily(parts, kernels)


def _below(data: Any, path: tuple[str, ...], here: str) -> dict[str, Any]:
    """The fits under a family's first names; a family may have none, if its measurements are not available yet."""
    if len(path) == 1 and isinstance(data, Mapping) and RESIDUALS in data:
        record = check_record(data[RESIDUALS], f"{here}.{RESIDUALS}")
        rest = {name: part for name, part in data.items() if name != RESIDUALS}
        return _below(rest, path, here) | {RESIDUALS: record}
    levels = FAMILIES[path[0]].module.LEVELS[len(path) - 1 :]
    if not levels:
        return _fit(data, path, here) if FAMILIES[path[0]].module.SURFACES else _numbers(data, path, here)
    if len(path) > 1 and not _mapping(data, here):
        raise ConfigError(f"{here} holds no fit")
    return {name: _below(part, (*path, name), f"{here}.{name}") for name, part in _named(data, levels[0], here)}


def _fit(data: Any, path: tuple[str, ...], here: str) -> dict[str, Any]:
    further = () if path[-1] in PARTS.get(path[0], ()) else PARTS.get(path[0], ())
    parts = dict(_named(data, ("constants", "surface", *further), here))
    if "constants" not in parts:
        raise ConfigError(f"{here}.constants is missing")
    found: dict[str, Any] = {"constants": _numbers(parts["constants"], path, f"{here}.constants")}
    if "surface" in parts:
        found["surface"] = _surface(parts["surface"], path[0], f"{here}.surface")
    for part in further:
        if part in parts:
            found[part] = _fit(parts[part], (*path, part), f"{here}.{part}")
    return found


def _numbers(data: Any, path: tuple[str, ...], here: str) -> dict[str, Any]:
    numbers = _mapping(data, here)
    for name in FAMILIES[path[0]].module.needed(*path[1:]):
        if name not in numbers:
            raise ConfigError(f"{here}.{name} is missing")
    for name, value in numbers.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0.0 < value < math.inf:
            raise ConfigError(f"{here}.{name} = {value!r} is not allowed; expected a number above 0")
    return dict(numbers)


def _surface(data: Any, family: str, here: str) -> Surface:
    try:
        surface = Surface.from_json(data)
    except ConfigError as error:
        raise ConfigError(f"{here}: {error}") from None
    known = dict.fromkeys(name for layout in FAMILIES[family].module.SURFACES for name in layout.knots)
    for name in surface.names:
        if name not in known:
            raise ConfigError(f"{here}: {name} is not a coordinate of {family}; allowed: {', '.join(known)}")
    return surface


def _named(data: Any, allowed: Collection[str], here: str) -> Iterable[tuple[str, Any]]:
    """Names and parts of a mapping, whose names must all be allowed."""
    for name, part in _mapping(data, here).items():
        if allowed and name not in allowed:
            raise ConfigError(f"{here}.{name} is not known; {choices_text(str(name), allowed)}")
        yield str(name), part


def _mapping(data: Any, here: str) -> Mapping[str, Any]:
    if not isinstance(data, Mapping):
        raise ConfigError(f"{here} = {str(data)[:40]!r} is not allowed; expected a mapping")
    return data
