"""Fitted parameters as a calibration file holds them, read so that every mistake is one sentence."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any

from graphsim.cost.families import attention, collectives, elementwise, gemm, moe
from graphsim.cost.fitting import Layout
from graphsim.cost.surface import Surface
from graphsim.errors import ConfigError, choices_text

FAMILIES = ("attention", "collectives", "elementwise", "gemm", "moe")

_LAYOUTS: dict[str, Collection[Layout]] = {
    "attention": attention.LAYOUTS.values(), "collectives": (collectives.LAYOUT, collectives.CUSTOM_LAYOUT),
    "gemm": (gemm.LAYOUT,), "moe": (moe.LAYOUT,),
}  # fmt: skip


def decoded(families: Any, where: str) -> dict[str, dict[str, Any]]:
    """The parameters of every family, surfaces ready to evaluate.

    Raises ConfigError for what no fit writes: an unknown family, a constant that is missing or not above 0, a table
    that does not fit its knots. `where` opens the message.
    """
    found = {}
    for name, data in _mapping(families, where).items():
        if name not in FAMILIES:
            raise ConfigError(f"{where}.{name} is not known; {choices_text(str(name), FAMILIES)}")
        found[str(name)] = _decoded(data, (str(name),), where)
    return found


def _decoded(data: Any, path: tuple[str, ...], where: str) -> dict[str, Any]:
    here = ".".join([where, *path])
    entry = _mapping(data, here)
    if path[0] == "elementwise" and len(path) > 1:
        return _numbers(entry, here, elementwise.HOST_START if path[1] == "host" else elementwise.START)
    found: dict[str, Any] = {}
    for name, part in entry.items():
        if name == "constants":
            found[name] = _numbers(part, f"{here}.{name}", _needed(*path))
        elif name == "surface":
            found[name] = _surface(part, path[0], f"{here}.{name}")
        else:
            found[str(name)] = _decoded(part, (*path, str(name)), where)
    if "surface" in found and "constants" not in found:
        raise ConfigError(f"{here}.constants is missing")
    return found


def _needed(family: str, *path: str) -> Collection[str]:
    """Names of the constants without which nothing can be priced."""
    if family == "attention":
        return attention.START["single" if path[-1] == "single" else "prefill" if path[0] == "prefill" else "decode"]
    if family == "collectives":
        return collectives.start_of(path[0])
    return {"gemm": gemm.START, "moe": moe.START}[family]


def _numbers(data: Any, here: str, needed: Collection[str]) -> dict[str, Any]:
    entry = _mapping(data, here)
    for name in needed:
        if name not in entry:
            raise ConfigError(f"{here}.{name} is missing")
    for name, value in entry.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0.0 < value < math.inf:
            raise ConfigError(f"{here}.{name} = {value!r} is not allowed; expected a number above 0")
    return dict(entry)


def _surface(data: Any, family: str, here: str) -> Surface:
    try:
        surface = Surface.from_json(data)
    except ConfigError as error:
        raise ConfigError(f"{here}: {error}") from None
    known = dict.fromkeys(name for layout in _LAYOUTS[family] for name in layout.knots)
    for name in surface.names:
        if name not in known:
            raise ConfigError(f"{here}: {name} is no coordinate of {family}; allowed: {', '.join(known)}")
    return surface


def _mapping(data: Any, here: str) -> Mapping[str, Any]:
    if not isinstance(data, Mapping):
        raise ConfigError(f"{here} = {str(data)[:40]!r} is not allowed; expected a mapping")
    return data
