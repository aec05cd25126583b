"""Fitted parameters as a calibration file holds them, read so that every mistake is one sentence."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from graphsim.cost.families import attention, collectives, elementwise, formats, gemm, moe
from graphsim.cost.surfaces.fitting import SurfaceSpec
from graphsim.cost.surfaces.surface import Surface
from graphsim.errors import ConfigError, choices_text

ANY: tuple[str, ...] = ()
"""Names that only measurements know, as those of expert kernels."""

LEVELS: dict[str, tuple[Collection[str], ...]] = {
    "attention": (tuple(attention.PHASES.values()), formats.ATTENTION),
    "collectives": (collectives.KINDS,), "elementwise": (("device", "host"),), "gemm": (formats.GEMM,),
    "moe": (formats.MOE, ANY),
}  # fmt: skip
"""For each family, the names that lead to a fit."""

LAYOUTS: dict[str, Iterable[SurfaceSpec]] = {
    "attention": attention.LAYOUTS.values(), "collectives": (collectives.LAYOUT, collectives.CUSTOM_LAYOUT),
    "gemm": (gemm.LAYOUT,), "moe": (moe.LAYOUT,),
}  # fmt: skip
"""What a family's surfaces may be laid out as."""


def decoded(families: Any, where: str) -> dict[str, dict[str, Any]]:
    """The parameters of every family, surfaces ready to evaluate.

    Raises ConfigError for what no fit writes: an unknown name, a constant that is missing or not above 0, a table
    that does not fit its knots. `where` opens the message.
    """
    return {name: _below(part, (name,), f"{where}.{name}") for name, part in _named(families, tuple(LEVELS), where)}


def _below(data: Any, path: tuple[str, ...], here: str) -> dict[str, Any]:
    """The fits under a family's first names; a family may have none, as where its measurements are yet to come."""
    levels = LEVELS[path[0]][len(path) - 1 :]
    if not levels:
        return _numbers(data, path, here) if path[0] == "elementwise" else _fit(data, path, here)
    if len(path) > 1 and not _mapping(data, here):
        raise ConfigError(f"{here} holds no fit")
    return {name: _below(part, (*path, name), f"{here}.{name}") for name, part in _named(data, levels[0], here)}


def _fit(data: Any, path: tuple[str, ...], here: str) -> dict[str, Any]:
    further = ("single",) if path[:1] == ("attention",) and path[-1] != "single" else ANY
    parts = dict(_named(data, ("constants", "surface", *further), here))
    if "constants" not in parts:
        raise ConfigError(f"{here}.constants is missing")
    found: dict[str, Any] = {"constants": _numbers(parts["constants"], path, f"{here}.constants")}
    if "surface" in parts:
        found["surface"] = _surface(parts["surface"], path[0], f"{here}.surface")
    if "single" in parts:
        found["single"] = _fit(parts["single"], (*path, "single"), f"{here}.single")
    return found


def _needed(family: str, name: str, *further: str) -> Collection[str]:
    """Names of the constants without which nothing can be priced."""
    if family == "attention":
        return attention.START["single" if "single" in further else name]
    if family == "elementwise":
        return elementwise.HOST_START if name == "host" else elementwise.START
    return moe.START if family == "moe" else {"gemm": gemm, "collectives": collectives}[family].start_of(name)


def _numbers(data: Any, path: tuple[str, ...], here: str) -> dict[str, Any]:
    numbers = _mapping(data, here)
    for name in _needed(*path):
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
    known = dict.fromkeys(name for layout in LAYOUTS[family] for name in layout.knots)
    for name in surface.names:
        if name not in known:
            raise ConfigError(f"{here}: {name} is no coordinate of {family}; allowed: {', '.join(known)}")
    return surface


def _named(data: Any, allowed: Collection[str], here: str) -> Iterable[tuple[str, Any]]:
    """Names and parts of a mapping, every name an allowed one."""
    for name, part in _mapping(data, here).items():
        if allowed and name not in allowed:
            raise ConfigError(f"{here}.{name} is not known; {choices_text(str(name), allowed)}")
        yield str(name), part


def _mapping(data: Any, here: str) -> Mapping[str, Any]:
    if not isinstance(data, Mapping):
        raise ConfigError(f"{here} = {str(data)[:40]!r} is not allowed; expected a mapping")
    return data
