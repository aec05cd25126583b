"""Reading tables of measured, counted or published facts; errors in a file are reported in one sentence."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphsim.errors import ConfigError, GraphsimError, needs
from graphsim.files.present import is_folder, shown

if TYPE_CHECKING:
    import pandas as pd

Row = Mapping[Any, Any]


def read_facts(path: str | Path, what: str, columns: Sequence[str] = (), **options: Any) -> pd.DataFrame:
    """The table in a CSV or Parquet file.

    path: the file
    what: name of the facts, for messages
    columns: required columns
    options: options of pandas.read_csv
    Raises ConfigError for a file that cannot be read, is empty, lacks a column, or has a header but no rows.
    """
    import pandas as pd

    if is_folder(path):
        raise ConfigError(f"{path}: is a folder, expected a file of {what}")
    try:
        frame = pd.read_parquet(path) if Path(path).suffix == ".parquet" else pd.read_csv(path, **options)
    except ImportError:
        raise needs("pyarrow", "parquet", f"{path}: reading Parquet", "give CSV") from None
    except pd.errors.EmptyDataError:
        raise ConfigError(f"{path}: the file is empty, expected {what}") from None
    except (OSError, ValueError) as error:
        reason = " ".join((getattr(error, "strerror", None) or str(error)).split())[:120]
        raise ConfigError(f"{shown(path)}: cannot be read as {what} ({reason})") from None
    for name in columns:
        if name not in frame.columns:
            raise ConfigError(f"{path}: column {name} is missing; needed are {', '.join(columns)}")
    if frame.empty:
        raise ConfigError(f"{path}: has a header and no rows, expected {what}")
    return frame


def measured(frame: pd.DataFrame, names: Iterable[str]) -> pd.DataFrame:
    """The frame with these columns as numbers; blank cells become NaN.

    Raises ConfigError if a cell contains anything but a finite number above 0.
    """
    found = {name: numbers_of(frame[name]) for name in names}
    for name, numbers in found.items():
        wrong = ~((numbers > 0) & (numbers < math.inf)) & frame[name].notna()
        if wrong.any():
            row = int(wrong.to_numpy().argmax())
            raise ConfigError(
                f"row {row + 1}: {name} = {frame[name].iloc[row]} is not allowed; expected a number above 0"
            )
    return frame.assign(**found)


def numbers_of(cells: pd.Series[Any]) -> pd.Series[Any]:
    """The cells as numbers; NaN for other contents and for integers beyond the range of floats."""
    import pandas as pd

    try:
        return pd.to_numeric(cells, errors="coerce")
    except OverflowError:
        return pd.to_numeric(cells.map(_as_float), errors="coerce")


def _as_float(cell: Any) -> Any:
    try:
        return float(cell)
    except OverflowError:
        return math.inf
    except (TypeError, ValueError):
        return math.nan


def number(row: Row, name: str) -> float:
    """The finite number in a cell. Raises ConfigError for any other content."""
    try:
        value = float(row[name])
    except (TypeError, ValueError):
        value = math.nan
    if not math.isfinite(value):
        raise ConfigError(f"{name} = {row[name]} is not allowed; expected a number")
    return value


def above_zero(row: Row, name: str) -> float:
    """The finite number above 0 in a cell. Raises ConfigError for any other content."""
    value = number(row, name)
    if value <= 0:
        raise ConfigError(f"{name} = {row[name]} is not allowed; expected a number above 0")
    return value


def whole(row: Row, name: str) -> int:
    """The non-negative integer in a cell, of any size. Raises ConfigError for any other content."""
    try:
        value = int(str(row[name]))
    except ValueError:
        value = int(number(row, name))
        if value != float(row[name]):
            raise ConfigError(f"{name} = {row[name]} is not allowed; expected a whole number") from None
    if value < 0:
        raise ConfigError(f"{name} = {row[name]} is not allowed; expected a number not below 0")
    return value


def each(frame: pd.DataFrame, path: str | Path, figures: Callable[[Row], dict[str, Any] | None]) -> pd.DataFrame:
    """The results of a function for every row; rows for which it returns None are left out.

    frame: the rows
    path: the file, for messages
    figures: the function
    Raises ConfigError naming file and row (counted from 1) if the function raises an error.
    """
    import pandas as pd

    lines = []
    for index, row in zip(frame.index, frame.to_dict("records"), strict=True):
        try:
            found = figures(row)
        except GraphsimError as error:
            raise ConfigError(f"{path}: row {index + 1}: {error}") from None
        lines += [found] if found else []
    return pd.DataFrame(lines)
