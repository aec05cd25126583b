"""Figures of one column: in one unit, with as many decimals each, so that they can be compared at a glance."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

SECONDS = {"ns": 1e-9, "µs": 1e-6, "ms": 1e-3, "s": 1.0}
BYTES = {"B": 1.0, "KiB": 2.0**10, "MiB": 2.0**20, "GiB": 2.0**30, "TiB": 2.0**40}
NOTHING = "-"
"""What stands for nothing, and for what is nothing to the decimals of its column."""


def times_column(values: Sequence[float], digits: int = 4) -> list[str]:
    """Durations in the unit of the longest, which has so many digits; `-` for what rounds to nothing, and for NaN."""
    return _column(values, SECONDS, digits)


def bytes_column(values: Sequence[float], digits: int = 4) -> list[str]:
    """Sizes in the unit of the largest, which has so many digits; `-` for what rounds to nothing, and for NaN."""
    return _column(values, BYTES, digits)


def numbers_column(values: Sequence[float], digits: int = 4) -> list[str]:
    """Plain numbers, with thousands apart: whole ones as such, or the largest with so many digits."""
    return _column(values, {"": 1.0}, 1 if all(value == round(value) for value in values) else digits)


def _column(values: Sequence[float], units: Mapping[str, float], digits: int) -> list[str]:
    most = max((abs(value) for value in values if math.isfinite(value)), default=0.0)
    unit, factor = next(iter(units.items()))
    for name, step in units.items():
        if most >= step:
            unit, factor = name, step
    before = math.floor(math.log10(most / factor)) + 1 if most else 1
    decimals = max(digits - max(before, 1), 0)
    return [_cell(value, factor, decimals, unit) for value in values]


def _cell(value: float, factor: float, decimals: int, unit: str) -> str:
    if math.isinf(value):
        return f"{value} {unit}".strip()
    text = f"{value / factor:,.{decimals}f}"
    return NOTHING if math.isnan(value) or not float(text.replace(",", "")) else f"{text} {unit}".strip()
