"""Checks of the numbers in a trace file, individually or by column; errors name the line."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from graphsim.errors import ConfigError, choices_text
from graphsim.files.measured import numbers_of
from graphsim.traffic.table import Floats, Ints
from graphsim.units import bounds_text, short

MOST_TOKENS = 10**9
MOST_TIME = 1e19
"""Upper limit of times in any unit; nanoseconds since 1970 are below it."""

Number = int | float


@dataclass(frozen=True, slots=True)
class Record:
    """One JSON object of a file."""

    path: Path
    line: int
    data: dict[str, Any]

    def __contains__(self, key: str) -> bool:
        return self.data.get(key) is not None

    def wrong(self, key: str, value: Any, allowed: str) -> ConfigError:
        """The error for an invalid value."""
        return ConfigError(f"{self.path}: line {self.line}: {key} = {short(value)} is not allowed; expected {allowed}")

    def number(self, key: str, most: float = MOST_TIME) -> Number:
        """The finite number from 0 under a key. Raises ConfigError for anything else."""
        if key not in self.data:
            names = choices_text(key, [" ".join(str(name).split())[:40] for name in self.data])
            raise ConfigError(f"{self.path}: line {self.line}: {key} is missing; {names}")
        value = self.data[key]
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= most:
            raise self.wrong(key, value, f"a number {bounds_text(0, most)}")
        return value

    def tokens(self, key: str) -> int:
        """The integer number of tokens under a key. Raises ConfigError for anything else."""
        value = self.number(key, MOST_TOKENS)
        if value != math.floor(value):
            raise self.wrong(key, value, "a whole number of tokens")
        return int(value)

    def parts(self, key: str) -> list[Any]:
        """The list under a key, empty if absent. Raises ConfigError for anything else."""
        value = self.data.get(key)
        if value is None:
            return []
        if not isinstance(value, list):
            raise self.wrong(key, value, "a list")
        return value

    def inside(self, key: str) -> Record:
        """The object under a key. Raises ConfigError for anything else."""
        value = self.data.get(key)
        if not isinstance(value, dict):
            raise self.wrong(key, value, "a JSON object")
        return Record(self.path, self.line, value)


def column(
    path: Path, name: str, values: Any, lines: Ints, *, most: float = MOST_TIME, whole: bool = False, unit: str = ""
) -> Floats:
    """A table's column as finite numbers from 0.

    path: the file
    name: name of the column
    values: an array or a pandas Series
    lines: line of each value in the file, for messages
    most: upper limit
    whole: whether the numbers must be integers
    unit: unit of the numbers, for messages
    Raises ConfigError naming the first line with anything else.
    """
    import pandas as pd

    series = pd.Series(values)
    if series.dtype.kind in "bmM":  # flags and dates are not numbers, although pandas converts them
        series = series.astype(str)
    found = numbers_of(series).to_numpy(dtype=float, na_value=np.nan)
    good = (found >= 0) & (found <= most)
    if whole:
        good &= found == np.floor(found)
    if not good.all():
        row = int(np.argmin(good))
        shown = shown_cell(series.iloc[row])
        kind = "a whole number" if whole else "a number"
        raise ConfigError(
            f"{path}: line {lines[row]}: {name} = {shown} is not allowed; expected {kind}{unit} {bounds_text(0, most)}"
        )
    return np.asarray(found, dtype=float)


def shown_cell(value: Any) -> str:
    """A table's cell as shown in a message."""
    if value is None or str(value) in ("<NA>", "NaT", "nan"):
        return "nothing"
    return short(value.item() if isinstance(value, np.generic) else value)


def per_request(path: Path, line: int, name: str, values: Any, count: int | None = None) -> Floats:
    """A list in a benchmark's result file with one number per request; None becomes nan.

    path: the file
    line: line in the file
    name: name of the list
    values: the list
    count: required length
    Raises ConfigError naming the list, and the first entry that is not a finite number from 0.
    """
    where = f"{path}: line {line}: {name}"
    if not isinstance(values, list):
        raise ConfigError(f"{where} = {short(values)} is not allowed; expected a list with a number for each request")
    if count is not None and len(values) != count:
        raise ConfigError(f"{where} has {len(values)} entries, expected one for each of {count} requests")
    found = np.empty(len(values))
    for index, value in enumerate(values):
        if value is None:
            found[index] = np.nan
        elif isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= MOST_TIME:
            raise ConfigError(
                f"{where}[{index}] = {short(value)} is not allowed; expected a number {bounds_text(0, MOST_TIME)}"
            )
        else:
            found[index] = value
    return found


def since_first(times: Sequence[Number], per_second: float) -> Floats:
    """Times in seconds after the first one, exact for large integers; nan remains nan.

    times: the times
    per_second: units per second
    """
    known = [time for time in times if time == time]
    first = min(known) if known else 0
    return np.array([(time - first) / per_second if time == time else np.nan for time in times], dtype=float)
