"""Conversion of option texts into numbers with units (`several.py` has lists and settings). The same in every command.

Each class is the `type` of an argparse option. An invalid text raises `argparse.ArgumentTypeError`, whose message the
parser prints after the option's name.
"""

from __future__ import annotations

import argparse
import re
from dataclasses import dataclass

from graphsim.errors import ConfigError
from graphsim.units import bounds_text, parse_quantity

_KINDS = {
    "count": ("number", "8 or 8k"), "few": ("number", "1, 2 or 8"),
    "s": ("time", "0.5, 500ms or 2min"), "h": ("duration", "12, 12h or 2d"),
    "bytes": ("size", "40GiB or 80GB"), "bytes/s": ("rate", "2GB/s or 500MiB/s"),
    "1/s": ("rate", "4, 4/s or 120/min"),
    "share": ("share", "0.99 or 99%"), "": ("number", "2.5"),
}  # fmt: skip
"""Name and example of each kind of quantity; `few` is a count that is not written with a unit prefix."""


@dataclass(frozen=True, slots=True)
class Quantity:
    """One number, with an optional unit if its kind has one; integers are returned as int.

    kind: kind in `graphsim.units.UNITS`, or `few` for a small count; a number without a unit is in the base unit
    """

    kind: str = "count"

    def __call__(self, text: str) -> float:
        """The number."""
        try:
            return _plain(float(text))
        except ValueError:
            pass
        try:
            return _plain(parse_quantity(text, "count" if self.kind == "few" else self.kind))
        except ConfigError:
            from graphsim.ranges import is_range

            noun, examples = _KINDS[self.kind]
            if self.kind in ("count", "few") and is_range(text):
                hint = "`graphsim sweep`, `best` and --vary take several"
                if _GROUPED.fullmatch(text):
                    hint = f"a number has no commas: {text.replace(',', '')}"
                raise argparse.ArgumentTypeError(
                    f"'{text}' holds several values, but one is expected; {hint}"
                ) from None
            raise argparse.ArgumentTypeError(f"'{text}' is not a {noun}; write {examples}") from None


_GROUPED = re.compile(r"[1-9][0-9]{0,2}(,[0-9]{3})+")
"""A number with separators of thousands, as messages print it."""


@dataclass(frozen=True, slots=True)
class Portion(Quantity):
    """A share from 0 to 1, also in percent."""

    kind: str = "share"

    def __call__(self, text: str) -> float:
        """The share."""
        value = super(Portion, self).__call__(text)
        if not 0.0 <= value <= 1.0:
            raise argparse.ArgumentTypeError(f"'{text}' is not allowed; expected a share from 0 to 1, or 0% to 100%")
        return value


def _plain(value: float) -> float:
    return int(value) if value.is_integer() else value


@dataclass(frozen=True, slots=True)
class Whole:
    """One integer not below `least`."""

    least: int

    def __call__(self, text: str) -> int:
        """The number."""
        try:
            value = Quantity()(text)
        except argparse.ArgumentTypeError:
            value = float("nan")
        if isinstance(value, int) and value >= self.least:
            return value
        raise argparse.ArgumentTypeError(f"'{text}' is not allowed; expected a whole number {bounds_text(self.least)}")
