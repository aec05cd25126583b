"""Several numbers in one text, as the command line and sweeps read it.

    1,2,4      these
    1-64       all whole numbers from 1 to 64
    1:256:8    start:stop:step: 1, 9, 17, …, up to 256 and with it where the steps meet it
    8..512*2   each twice the one before, up to 512 and with it where the steps meet it

Parts between commas may be of different kinds; a value that comes twice counts once. Numbers may carry a prefix: 8k is
8000, 8Ki is 8192.
"""

from __future__ import annotations

import re
from decimal import Decimal

from graphsim.errors import ConfigError
from graphsim.units import amount_text, parse_quantity, short

FORMS = "8, 1,2,4, 1-64, 1:256:8 (start:stop:step) or 8..512*2 (each twice the one before)"
"""How several numbers may be written, for a sentence."""

MOST = 1_000_000
"""Values that one text may stand for."""

_NUMBER = r"\s*((?:[0-9][0-9_]*(?:\.[0-9]+)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?[A-Za-z]*)\s*"
_STRETCH = re.compile(f"{_NUMBER}-{_NUMBER}")
_STEPS = re.compile(f"{_NUMBER}:{_NUMBER}:{_NUMBER}")
_POWERS = re.compile(rf"{_NUMBER}\.\.{_NUMBER}\*{_NUMBER}")


def values_of(text: str, *, whole: bool = True) -> list[float]:
    """The numbers that a text stands for, each once, in the order of the text.

    whole: only whole numbers will do
    Raises ConfigError naming the part that is wrong and what may be written.
    """
    found: dict[float, None] = {}
    for part in text.split(","):
        found |= dict.fromkeys(values_of_part(part, whole=whole))
        _check_count(text, len(found))
    return list(found)


def values_of_part(part: str, *, whole: bool = True) -> list[float]:
    """The numbers of a single number or range. Raises ConfigError as `values_of` does."""
    values = _range_of(part, whole)
    if values is None:
        values = [_number(part, part, whole)]
    if whole and (broken := next((value for value in values if not float(value).is_integer()), None)) is not None:
        raise ConfigError(f"'{part.strip()}' holds {amount_text(broken)}, which is not a whole number")
    return [int(value) if float(value).is_integer() else value for value in values]


def is_range(text: str) -> bool:
    """Whether a text has the form of several numbers, be they sensible or not."""
    return "," in text or any(form.fullmatch(text) for form in (_STRETCH, _STEPS, _POWERS))


def _range_of(part: str, whole: bool) -> list[float] | None:
    """The values of a range, None for a text that has the form of none."""
    for form, kind in ((_STRETCH, "-"), (_STEPS, ":"), (_POWERS, "*")):
        found = form.fullmatch(part) if len(part) <= 100 else None
        if found is not None:
            low, high, *further = [_number(text, part, whole) for text in found.groups()]
            if low > high:
                raise ConfigError(
                    f"'{part.strip()}' runs from {amount_text(low)} down to {amount_text(high)}; put the smaller "
                    "number first"
                )
            if kind == "-":
                return _stepped(part, low, high, 1.0)
            return (_stepped if kind == ":" else _multiplied)(part, low, high, further[0])
    return None


def _stepped(part: str, low: float, high: float, step: float) -> list[float]:
    if step <= 0.0:
        raise ConfigError(f"'{part.strip()}' has the step {amount_text(step)}; expected one above 0")
    start, by = Decimal(repr(low)), Decimal(repr(step))
    count = int((Decimal(repr(high)) - start) / by) + 1
    _check_count(part, count)
    return [float(start + i * by) for i in range(count)]


def _multiplied(part: str, low: float, high: float, factor: float) -> list[float]:
    if factor <= 1.0 or low <= 0.0:
        raise ConfigError(f"'{part.strip()}' never ends; expected a start above 0 and a factor above 1")
    value, found = low, [low]
    while (value := value * factor) <= high * (1.0 + 1e-12):
        found.append(value)
        _check_count(part, len(found))
    return found


def _check_count(part: str, count: int) -> None:
    if count > MOST:
        raise ConfigError(
            f"{short(part.strip())} is more than {amount_text(MOST)} values, the most allowed; take larger steps"
        )


def _number(text: str, part: str, whole: bool) -> float:
    try:
        return parse_quantity(text, "count")
    except ConfigError:
        kind = "a whole number" if whole else "a number"
        raise ConfigError(f"{short(part.strip())} is not {kind} or a range; write {FORMS}") from None
