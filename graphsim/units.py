"""Numbers and units: SI inside, human units only where a person writes or reads.

Sizes on memory cards are binary (80 GiB), rates are decimal (3.35 TB/s), and both
may be written either way in a file; a plain number is SI base units.
"""

from __future__ import annotations

import math
import numbers
import re
from typing import Any

from numpy.typing import NDArray

from graphsim.errors import ConfigError, choices_text

Num = float | int | NDArray[Any]
"""One number, or one number per scenario."""

_DECIMAL = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15}
_BINARY = {"Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30, "Ti": 2.0**40}
_SMALL = {"": 1.0, "m": 1e-3, "u": 1e-6, "µ": 1e-6, "n": 1e-9}

UNITS: dict[str, dict[str, float]] = {
    "bytes": {f"{p}B": f for p, f in (_DECIMAL | _BINARY).items()},
    "bytes/s": {f"{p}B/s": f for p, f in (_DECIMAL | _BINARY).items()},
    "flop/s": {f"{p}{unit}": f for p, f in _DECIMAL.items() for unit in ("FLOP/s", "FLOPS", "OP/s", "OPS")},
    "s": {"d": 86400.0, "h": 3600.0, "min": 60.0} | {f"{p}s": f for p, f in _SMALL.items()},
    "Hz": {f"{p}Hz": f for p, f in _DECIMAL.items()},
    "W": {f"{p}W": f for p, f in _DECIMAL.items()},
    "1/s": {"/h": 1.0 / 3600.0, "/min": 1.0 / 60.0, "/s": 1.0},
    "h": {"s": 1.0 / 3600.0, "min": 1.0 / 60.0, "h": 1.0, "d": 24.0},
    "count": {p: f for p, f in (_DECIMAL | {"B": 1e9} | _BINARY).items() if p},
    "share": {"%": 0.01},
    "": {"": 1.0},
}
"""For each kind of quantity, the suffixes that may be written and their factors; a bare number has the factor 1."""

_ANY_CASE = ("bytes", "s", "1/s", "h", "count")
"""Kinds whose units are understood in small and in capital letters: none of them means something else in the other.
Of rates they may: 25 Gb/s are gigabits."""

_QUANTITY = re.compile(r"\s*([+-]?(?:[0-9][0-9_]*\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)\s*([^0-9\s]\S*)?\s*")


def as_number(value: Any) -> Num | None:
    """`value` as a float, or as an array of floats over scenarios; None for whatever is neither.

    Lists count as arrays; texts, flags, masked values and empty or nested lists do not count. Whole numbers stay exact
    up to 2^53.
    """
    if type(value) is float:
        return value
    if isinstance(value, bool | str | bytes) or value is None:
        return None
    try:
        if type(value) is int:
            return float(value)
        import numpy as np

        if np.ma.is_masked(value) or (isinstance(value, list | tuple) and bool in set(map(type, value))):
            return None
        array = np.asarray(value)
        if array.dtype.kind not in "iuf" and not (array.ndim == 0 and isinstance(value, int)):
            return None
        array = array.astype(float)
    except (TypeError, ValueError, OverflowError):
        return None
    if array.ndim > 1 or array.size == 0:
        return None
    return float(array) if array.ndim == 0 else array


def checked_number(
    name: str, value: Any, least: float, most: float = math.inf, *, whole: bool = True, one: bool = False
) -> Any:
    """`value` if it is a number within bounds, lists as arrays of floats over scenarios.

    whole: only whole numbers will do, and one of them comes back as an int
    one: no arrays
    Raises ConfigError naming the argument, the value and what is allowed.
    """
    number = as_number(value)
    if number is None or (one and not isinstance(number, float)) or not is_within(number, least, most, whole=whole):
        raise ConfigError(f"{name} = {short(value)} {not_within(least, most, whole=whole, one=one)}")
    return int(number) if whole and isinstance(number, float) else number


def not_within(least: float, most: float, *, whole: bool, one: bool = False) -> str:
    """The end of a message on a number that is not within its bounds."""
    kind = ("single " if one else "") + ("whole number" if whole else "number")
    return f"is not allowed; expected a {kind} {bounds_text(least, most)}"


def is_within(number: Num, least: float, most: float, *, whole: bool) -> bool:
    """Whether a float, or every entry of an array, is finite, from `least` to `most`, and whole where it has to be."""
    if isinstance(number, float):
        return math.isfinite(number) and least <= number <= most and (not whole or number == math.floor(number))
    import numpy as np

    good = np.isfinite(number) & (number >= least) & (number <= most)
    return bool(np.all(good)) and not (whole and np.any(number != np.floor(number)))


def entries_of(value: Any) -> list[Any]:
    """The entries of a list, an array or a column of a table; a single value as a list of one."""
    if isinstance(value, list | tuple | range):
        return list(value)
    if not hasattr(value, "tolist"):
        return [value]
    import numpy as np

    return [value] if np.ma.is_masked(value) or np.ndim(value) > 1 else np.asarray(value, dtype=object).ravel().tolist()


def require_known(name: str, value: Any, allowed: Any) -> None:
    """Raise ConfigError, with what is allowed, unless a value is one of these texts."""
    if not isinstance(value, str) or value not in allowed:
        raise ConfigError(f"{name} = {short(value)} is not known; {choices_text(str(value), allowed)}")


def checked_scenario(scenario: Any, held: int) -> int:
    """The index of a scenario. Raises ConfigError if it is not a whole number from 0 to `held` - 1."""
    whole = isinstance(scenario, numbers.Integral) and not isinstance(scenario, bool)
    if not whole or not 0 <= int(scenario) < held:
        raise ConfigError(
            f"scenario = {short(scenario)} is not allowed; the graph holds scenarios 0 to {held - 1}, by whole numbers"
        )
    return int(scenario)


def parse_quantity(value: Any, kind: str) -> float:
    """A number in SI base units from `989.4 TFLOP/s`, `80 GiB`, `2 us` or a plain number.

    Raises ConfigError saying what is allowed; the caller adds where.
    """
    if isinstance(value, str):
        number = _parse_text(value, kind)
    elif isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise ConfigError(f"{short(value)} is not a number" + (f" (in {kind})" if kind else ""))
    else:
        number = math.inf if isinstance(value, int) and abs(value) > 10**300 else float(value)
    if not math.isfinite(number):
        raise ConfigError(f"{short(value) if isinstance(value, str) else number} is not a finite number")
    return number


def short(value: Any) -> str:
    """A value as it appears in a message: in one line, cut to a readable length."""
    try:
        text = repr(value.item() if type(value).__module__ == "numpy" and not value.shape else value)
    except (ValueError, RecursionError):  # integers beyond Python's digit limit, cyclic junk
        text = f"a {type(value).__name__}"
    if isinstance(value, type):
        text = f"the class {value.__name__}"
    elif " object at 0x" in text:  # where it is in memory tells nobody anything
        text = f"a {type(value).__name__}"
    text = " ".join(text.split())
    return text if len(text) <= 60 else text[:57] + "…"


def _parse_text(text: str, kind: str) -> float:
    match = _QUANTITY.fullmatch(text) if len(text) <= 60 else None
    if match is None:
        examples = ", ".join(list(UNITS[kind])[-4:])
        unit = f" and a unit such as {examples}" if kind else ""
        raise ConfigError(f"{short(text)} is not a quantity; write a number{unit}")
    unit = match.group(2) or ""
    factor = 1.0 if not unit else _factor(unit, kind)  # "3.35e12" without a sign in the exponent is a text in YAML
    if factor is None:
        expected = f"a unit of {kind}; {choices_text(unit, UNITS[kind])}" if kind else "a plain number"
        raise ConfigError(f"{short(text)} has the unit '{unit}', expected {expected}")
    return float(match.group(1).replace("_", "")) * factor


def _factor(unit: str, kind: str) -> float | None:
    units = UNITS[kind]
    if kind in _ANY_CASE and unit not in units and (unit.islower() or unit.isupper()):
        return next((factor for name, factor in units.items() if name.lower() == unit.lower()), None)
    return units.get(unit)


def scaled(value: float, unit: str, prefixes: dict[str, float] | None = None) -> str:
    """`value` with the prefix that leaves one to three digits before the point: `3.35 TB/s`."""
    if not math.isfinite(value):
        return f"{value} {unit}"
    steps = sorted((prefixes or _DECIMAL).items(), key=lambda item: item[1])
    name, factor = steps[0]
    for step_name, step in steps:
        if abs(value) >= step:
            name, factor = step_name, step
    return f"{value / factor:.4g} {name}{unit}"


def amount_text(value: Num, kind: str = "") -> str:
    """A number as a message states it: `10,000,000`, `0.001`, `1e15`, `8 MiB`.

    kind: kind in `UNITS` of a bound, which then has the largest unit that leaves it whole, otherwise its base unit
    """
    number = math.inf if isinstance(value, int) and value > 10**300 else float(value)
    if kind in ("", "count") or number == 0.0 or not math.isfinite(number):
        return _amount(number)
    units = sorted(UNITS[kind].items(), key=lambda item: -item[1])  # of units alike the first, since sorting is stable
    unit, factor = next(
        ((unit, factor) for unit, factor in units if number / factor == round(number / factor)),
        next(((unit, factor) for unit, factor in units if factor == 1.0), ("", 1.0)),
    )
    space = "" if unit.startswith(("/", "%")) else " "
    return f"{_amount(number / factor)}{space}{unit}".rstrip()


def _amount(value: float) -> str:
    """A number without a unit: integers below 10^15 whole, others to six digits."""
    if abs(value) < 1e15 and (value == math.floor(value) or abs(value) >= 1e6):
        return f"{value:,.0f}"
    mantissa, e, exponent = f"{value:g}".partition("e")
    return f"{mantissa}e{int(exponent)}" if e else mantissa


def bounds_text(least: float, most: float = math.inf, kind: str = "") -> str:
    """Two bounds as a message states them: `from 1 to 10,000,000`, `from 1 B/s`, `up to 1e30`; see `amount_text`."""
    if math.isinf(least):
        return f"up to {amount_text(most, kind)}"
    return f"from {amount_text(least, kind)}" + ("" if math.isinf(most) else f" to {amount_text(most, kind)}")


def seconds_text(value: float) -> str:
    """A duration as a person reads it: `12.3 ms`; nothing that is measured takes less than a nanosecond."""
    if 0 < abs(value) < 1e-9:
        return "<1 ns"
    return "0 s" if value == 0 else scaled(value, "s", {"n": 1e-9, "µ": 1e-6, "m": 1e-3, "": 1.0})


def counted_text(number: float, what: str) -> str:
    """A number of things: `1 adapter`, `1,000 adapters`."""
    return f"{number:,.0f} {what}{'' if number == 1 else 's'}"


def rate_text(value: float, unit: str) -> str:
    """A rate in four digits without a prefix: `3.756 requests/s`, `12,350 tokens/s`; `–` for NaN."""
    return "–" if math.isnan(value) else f"{float(f'{value:.4g}'):,.12g} {unit}"


def throughput_text(value: float) -> str:
    """Tokens per second in four digits: `60.68 tokens/s`, `12,350 tokens/s`."""
    return rate_text(value, "tokens/s")


def joules_text(value: float) -> str:
    """An energy as a person reads it: `0.461 J`."""
    return scaled(value, "J", {"µ": 1e-6, "m": 1e-3, "": 1.0, "k": 1e3, "M": 1e6})


def watts_text(value: float) -> str:
    """A power in whole watts: `506 W`."""
    return f"{value:.0f} W"


def bytes_text(value: float) -> str:
    """A memory size in binary units: `14.5 GiB`."""
    return scaled(value, "B", {"": 1.0} | _BINARY)


def count_text(value: float) -> str:
    """A large count with a decimal prefix: `8.03 B` for billions."""
    return scaled(value, "", {"": 1.0, "k": 1e3, "M": 1e6, "B": 1e9, "T": 1e12}).strip()
