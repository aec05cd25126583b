"""Traces in tables: a column of times, two of lengths, and optionally one of adapters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from graphsim.errors import ConfigError
from graphsim.traffic.formats.adapters import column_of
from graphsim.traffic.formats.cells import MOST_TOKENS, column
from graphsim.traffic.formats.found import Found
from graphsim.traffic.formats.sources import chunks, header
from graphsim.traffic.formats.trace import Wanted
from graphsim.traffic.table import Floats, Ints

Seconds = Callable[[Path, str, Any, Ints], Floats]
"""Converts a column of times to seconds, given file, column name, values and lines."""


def plain_seconds(path: Path, name: str, values: Any, lines: Ints) -> Floats:
    """The times in a column that is already in seconds."""
    return column(path, name, values, lines, unit=" of seconds")


def named(path: Path, columns: Sequence[str], *spellings: str) -> str:
    """The column with one of these names, regardless of case. Raises ConfigError if there is none."""
    known = {name.strip().lower(): name for name in columns}
    found = next((known[name.lower()] for name in spellings if name.lower() in known), None)
    if found is None:
        raise _missing(path, spellings[0], columns)
    return found


def _missing(path: Path, name: str, columns: Sequence[str]) -> ConfigError:
    found = ", ".join(" ".join(column.split())[:40] for column in columns[:20])
    return ConfigError(f"{path}: column {' '.join(name.split())[:40]} is missing; found are {found}")


def read_table(
    path: Path, wanted: Wanted, time: Sequence[str], inputs: Sequence[str], outputs: Sequence[str],
    seconds: Seconds = plain_seconds,
) -> Found:  # fmt: skip
    """The requests in a table.

    path: the file
    wanted: arguments of `read_trace`
    time, inputs, outputs: possible names of the columns
    seconds: converts times to seconds
    Raises ConfigError for a missing column, and for the first line without a valid number.
    """
    columns = header(path)
    names = [named(path, columns, *spellings) for spellings in (time, inputs, outputs)]
    adapter = column_of(columns, wanted.adapter)
    if wanted.adapter and adapter is None:
        raise _missing(path, wanted.adapter, columns)
    used = list(dict.fromkeys([*names, *([adapter] if adapter else [])]))
    parts: list[tuple[Floats, Floats, Floats]] = []
    adapters: list[Any] = []
    for frame, lines in chunks(path, used, wanted.rows):
        lengths = [column(path, name, frame[name], lines, most=MOST_TOKENS, whole=True) for name in names[1:]]
        parts.append((seconds(path, names[0], frame[names[0]], lines), lengths[0], lengths[1]))
        adapters += frame[adapter].tolist() if adapter else []
    joined = [np.concatenate([part[place] for part in parts]) if parts else np.empty(0) for place in range(3)]
    return Found(
        seconds=joined[0], input_tokens=joined[1], output_tokens=joined[2], adapter=adapters if adapter else None
    )
