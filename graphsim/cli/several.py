"""Conversion of option texts into several values: ranges, names, settings, prices. The same in every command.

As `values.py`, whose quantities these are made of.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from graphsim.cli.engine_flags import values_or_words
from graphsim.cli.values import Quantity
from graphsim.errors import ConfigError, choices_text
from graphsim.ranges import FORMS, values_of
from graphsim.units import bounds_text


@dataclass(frozen=True, slots=True)
class Several:
    """Several integers: a list, ranges, or both (see `graphsim.ranges`).

    least: lower bound; None if the caller checks it
    """

    least: int | None = None

    def __call__(self, text: str) -> list[int]:
        """The numbers, in the order of the text."""
        try:
            found = [int(value) for value in values_of(text)]
        except ConfigError as error:
            raise argparse.ArgumentTypeError(str(error)) from None
        if self.least is not None and min(found) < self.least:
            raise argparse.ArgumentTypeError(
                f"'{min(found)}' is not allowed; expected whole numbers {bounds_text(self.least)}, such as {FORMS}"
            )
        return found


@dataclass(frozen=True, slots=True)
class Names:
    """Several comma-separated names; `kv=fp8` after a format is part of it."""

    def __call__(self, text: str) -> list[str]:
        """The names, in the order of the text."""
        found: list[str] = []
        for part in text.split(","):
            if "=" in part and found:
                found[-1] += f",{part.strip()}"
            else:
                found.append(part.strip())
        if not all(found):
            raise argparse.ArgumentTypeError(f"'{text}' contains an empty name; separate names by commas, as in a,b")
        return found


class Listed(argparse.Action):
    """Argparse action that joins the lists of names of all words after an option."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option_string: Any = None
    ) -> None:
        """Store the names of all words as one list."""
        setattr(namespace, self.dest, [name for names in values for name in names])


@dataclass(frozen=True, slots=True, eq=False)
class Settings:
    """`key=value,…`, values with the units of their kind.

    keys: for each key, its field, whose name is also accepted as a key, and its kind of quantity, `word` for a name
    """

    keys: Mapping[str, tuple[str, str]]

    def __call__(self, text: str) -> dict[str, Any]:
        """The values by field."""
        by_field = {field: (field, kind) for field, kind in self.keys.values()}
        found: dict[str, Any] = {}
        for entry in text.split(","):
            key, _, value = (part.strip() for part in entry.partition("="))
            meant = self.keys.get(key.lower()) or by_field.get(key.lower())
            if meant is None:
                raise argparse.ArgumentTypeError(f"'{key}' is not a known key; {choices_text(key, self.keys)}")
            field, kind = meant
            if field in found:
                raise argparse.ArgumentTypeError(f"{key} is given twice; leave one out")
            found[field] = value.lower() if kind == WORD else _setting(key, value, kind)
        return found


WORD = "word"
"""The kind of a setting that is a name."""


def _setting(key: str, text: str, kind: str) -> float:
    try:
        value = Quantity(kind)(text)
    except argparse.ArgumentTypeError as error:
        raise argparse.ArgumentTypeError(f"{key} = {error}") from None
    if value != value:
        raise argparse.ArgumentTypeError(f"{key} = '{text}' is not a number")
    return value


@dataclass(frozen=True, slots=True)
class Prices:
    """Price of a device-hour: one number, or one per device as NAME=NUMBER,…."""

    def __call__(self, text: str) -> float | dict[str, float]:
        """The number, or the numbers by device name as given."""
        pairs = [entry.rpartition("=") for entry in text.split(",")]
        try:
            if len(pairs) == 1 and not pairs[0][0]:
                return float(text)
            return {name.strip(): float(price) for name, _, price in pairs}
        except ValueError:
            raise argparse.ArgumentTypeError(
                f"'{text}' is not a price; expected a number, or NAME=NUMBER,NAME=NUMBER"
            ) from None


def add_price(parser: argparse.ArgumentParser) -> None:
    """Add --price."""
    parser.add_argument(
        "--price",
        type=Prices(),
        metavar="HW=X,…",
        help="price of a device-hour, in any currency: one number, or one per device",
    )


@contextmanager
def named_as_options() -> Iterator[None]:
    """Context in which error messages name arguments by their command-line options."""
    try:
        yield
    except ConfigError as error:
        text = re.sub(r"\bprice_per_hour\b", "--price", str(error))
        text = re.sub(r"\bbest_training: (\w+) needs tokens,", r"--goal \1 needs --tokens,", text)
        raise type(error)(text.replace("a mapping of devices to prices", "one for each device, HW=X,…")) from None


def varied(option: str, text: str, what: str, example: str) -> tuple[str, list[Any]]:
    """The argument that `NAME=VALUE,VALUE,…` names, and its values. Raises ConfigError for any other text.

    option, text: the option and its value
    what, example: for the error message, what NAME stands for, and an example
    """
    name, equals, values = text.partition("=")
    if not equals or not values:
        raise ConfigError(f"{option} {text}: expected {what}=VALUE,VALUE,…, such as {example}")
    try:
        return name.strip().lstrip("-").replace("-", "_"), values_or_words(values)
    except ConfigError as error:
        raise ConfigError(f"{option} {name}: {error}") from None
