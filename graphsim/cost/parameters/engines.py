"""Engines in the cost model: the kernels that an engine runs, and its choice among alternatives.

Measured kernels name their framework. vLLM's and NCCL's make a device's base calibration; another engine's are in a
separate file, by kernel, and take precedence over the base, which is used for everything else, such as NCCL's
collectives.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from graphsim.files.frameworks import ANY, ENGINES


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelTable:
    """The kernels of an engine.

    engine: one of ENGINES, or "" for the base
    orders: family, number format (or ANY) and the preferred kernels, best first; unlisted kernels follow in the order
        of the fit
    """

    engine: str = ""
    orders: tuple[tuple[str, str, tuple[str, ...]], ...] = ()

    def order(self, family: str, number_format: str = ANY) -> tuple[str, ...]:
        """The preferred kernels of a family, best first."""
        return next((names for of, form, names in self.orders if (of, form) == (family, number_format)), ())

    def formats(self, family: str) -> list[str]:
        """The number formats of a family that have an order of their own."""
        return [form for of, form, _ in self.orders if of == family and form != ANY]


BASE_KERNELS = "base"
"""Stands for the base's kernels of a family in an engine's order."""

BASE = KernelTable()


def engine_of(framework: Any) -> str:
    """The engine whose file holds a framework's kernels; "" for the base, also for rows without a framework."""
    name = framework.lower() if isinstance(framework, str) else ""
    return name if name in ENGINES else ""


def layered(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Layered parameters: at every level, the first part that has a fit counts."""
    found: dict[str, Any] = {}
    for name in dict.fromkeys(name for part in parts for name in part):
        values = [part[name] for part in parts if name in part]
        found[name] = values[0] if is_fit(values[0]) else layered([value for value in values if not is_fit(value)])
    return found


def is_fit(value: Any) -> bool:
    """Whether a value is a fit: constants, or numbers."""
    return not isinstance(value, Mapping) or "constants" in value or not any(map(_is_mapping, value.values()))


def _is_mapping(value: Any) -> bool:
    return isinstance(value, Mapping)


def in_order(kernels: Mapping[str, Mapping[str, Any]], table: KernelTable, family: str) -> list[Mapping[str, Any]]:
    """The fits of an engine's kernels and, last unless a table says otherwise, of the base's, best first."""
    special = [
        _of_format(fits, number_format)
        for number_format in table.formats(family)
        for fits in _in_order(kernels, table.order(family, number_format))
    ]
    return [*special, *_in_order(kernels, table.order(family))]


def _in_order(kernels: Mapping[str, Mapping[str, Any]], order: Sequence[str]) -> list[Mapping[str, Any]]:
    names = dict.fromkeys([*(name for name in order if name in kernels), *kernels])
    return [kernels[name] for name in names]


def _of_format(fits: Mapping[str, Any], number_format: str) -> dict[str, Any]:
    """The fits of one number format."""
    found: dict[str, Any] = {}
    for name, part in fits.items():
        if name == number_format:
            found[name] = part
        elif not is_fit(part) and (within := _of_format(part, number_format)):
            found[name] = within
    return found
