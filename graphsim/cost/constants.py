"""The fitted constants of cost formulas, by name: the values that a refit, or another draw of a fit, changes.

Correction surfaces are tables and are not included; neither are blends of several devices' fits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from graphsim.cost.families.blend import Blend
from graphsim.cost.families.registry import FAMILIES
from graphsim.cost.residuals import RESIDUALS

PREFIX = "constants"

_KEPT = (RESIDUALS, "surface")


def constants_of(family: str, fits: Mapping[str, Any]) -> dict[str, float]:
    """The constants of a family's fits: `constants.gemm.bfloat16.launch_clocks`, `constants.attention.decode.fp8.dram`.

    All are at least 0. Those in a family's `DECIDING` determine the form of its formulas, and are left out.
    """
    found: dict[str, float] = {}
    deciding: tuple[str, ...] = getattr(FAMILIES[family].module, "DECIDING", ())

    def noted(name: str, value: Any) -> Any:
        if value >= 0.0 and name.rpartition(".")[2] not in deciding:
            found[name] = float(value)
        return value

    _each(fits, f"{PREFIX}.{family}", noted)
    return found


def with_constants(family: str, fits: Mapping[str, Any], values: Mapping[str, Any]) -> Mapping[str, Any]:
    """The fits with some constants replaced, by the names of `constants_of`; the same object if none is."""
    if not any(name.startswith(f"{PREFIX}.{family}.") for name in values):
        return fits
    return _each(fits, f"{PREFIX}.{family}", lambda name, value: values.get(name, value))


def _each(fits: Mapping[str, Any], name: str, change: Callable[[str, Any], Any]) -> Mapping[str, Any]:
    """The fits with each constant changed; the key `constants` is not part of a name."""
    if isinstance(fits, Blend):
        return fits
    changed: dict[str, Any] = {}
    for key, part in fits.items():
        own = name if key == "constants" else f"{name}.{key}"
        if key in _KEPT or isinstance(part, bool | str):
            changed[key] = part
        elif isinstance(part, Mapping):
            changed[key] = _each(part, own, change)
        else:
            changed[key] = change(own, part) if isinstance(part, int | float) else part
    return changed
