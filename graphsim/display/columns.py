"""Formatting of a column of figures: one unit and the same number of decimals, so that values compare at a glance."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

SECONDS = {"ns": 1e-9, "µs": 1e-6, "ms": 1e-3, "s": 1.0}
BYTES = {"B": 1.0, "KiB": 2.0**10, "MiB": 2.0**20, "GiB": 2.0**30, "TiB": 2.0**40}
PLAIN = {"": 1.0}
NOTHING = "-"
"""Shown for NaN, and in columns of parts for values that round to zero."""
LEAST_DIGITS, MOST_DECIMALS = 3, 6
"""Significant digits that the smallest figure of a column keeps, and the most decimals that may be spent on them."""


class _Scale(NamedTuple):
    unit: str
    factor: float
    decimals: int


def times_column(values: Sequence[float], digits: int = 4) -> list[str]:
    """Durations in the unit of the longest, which has `digits` digits; `-` for NaN and values that round to zero."""
    return _parts(values, SECONDS, digits)


def bytes_column(values: Sequence[float], digits: int = 4) -> list[str]:
    """Sizes in the unit of the largest, which has `digits` digits; `-` for NaN and values that round to zero."""
    return _parts(values, BYTES, digits)


def numbers_column(values: Sequence[float], digits: int = 4) -> list[str]:
    """Numbers with thousands separators: integers without decimals, otherwise the largest has `digits` digits."""
    return _parts(values, PLAIN, 1 if all(value == round(value) for value in values) else digits)


def latencies_column(values: Sequence[float], digits: int = 4) -> list[str]:
    """Durations in the unit of the longest, which has at least `digits` digits, the shortest 3; `-` for NaN."""
    return _all(values, SECONDS, digits)


def figures_column(values: Sequence[float], digits: int = 4) -> list[str]:
    """Numbers with thousands separators; the largest has at least `digits` digits, the smallest 3; `-` for NaN.

    Integers have no decimals.
    """
    whole = all(value == round(value) for value in values if math.isfinite(value))
    return [_cell(value, _Scale("", 1.0, 0)) for value in values] if whole else _all(values, PLAIN, digits)


def _parts(values: Sequence[float], units: Mapping[str, float], digits: int) -> list[str]:
    scale = _scale(values, units, digits)
    texts = [_cell(value, scale) for value in values]
    zero = _cell(0.0, scale)
    return [NOTHING if text.lstrip("-") == zero else text for text in texts]


def _all(values: Sequence[float], units: Mapping[str, float], digits: int) -> list[str]:
    scale = _scale(values, units, digits)
    found = [abs(value) / scale.factor for value in values if value and math.isfinite(value)]
    if not found:
        scale = _Scale([*units][-1], 1.0, 0)
    else:
        needed = max(digits - _digits_before(max(found)), LEAST_DIGITS - _digits_before(min(found)))
        scale = scale._replace(decimals=max(0, min(needed, MOST_DECIMALS)))
    return [_cell(value, scale) for value in values]


def _digits_before(value: float) -> int:
    """Digits before the decimal point; for a value below 1, minus the number of zeros after the point."""
    return math.floor(math.log10(value)) + 1


def _scale(values: Sequence[float], units: Mapping[str, float], digits: int) -> _Scale:
    """The largest unit in which the largest figure is at least 1, and the decimals that give it `digits` digits."""
    most = max((abs(value) for value in values if math.isfinite(value)), default=0.0)
    unit, factor = next(iter(units.items()))
    for name, step in units.items():
        if most >= step:
            unit, factor = name, step
    before = _digits_before(most / factor) if most else 1
    return _Scale(unit, factor, max(digits - max(before, 1), 0))


def _cell(value: float, scale: _Scale) -> str:
    if math.isnan(value):
        return NOTHING
    text = f"{value}" if math.isinf(value) else f"{value / scale.factor:,.{scale.decimals}f}"
    return f"{text} {scale.unit}".strip()
