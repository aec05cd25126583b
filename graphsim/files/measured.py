"""Tables of measured, counted or published facts, read with one sentence about what is wrong with a file."""

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
    """A CSV or Parquet file that has these columns.

    what: the facts, for messages; options: of pandas.read_csv
    Raises ConfigError for a file that cannot be read, is empty, lacks a column, or has a header and no rows.
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
    """The frame with these columns as numbers; blank cells are not numbers.

    Raises ConfigError where a cell holds anything but a finite number above 0.
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
    """The cells as numbers; what is none is not a number, nor is a whole number beyond any float."""
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
    """A cell that holds a finite number. Raises ConfigError where it does not."""
    try:
        value = float(row[name])
    except (TypeError, ValueError):
        value = math.nan
    if not math.isfinite(value):
        raise ConfigError(f"{name} = {row[name]} is not allowed; expected a number")
    return value


def above_zero(row: Row, name: str) -> float:
    """A cell that holds a finite number above 0. Raises ConfigError where it does not."""
    value = number(row, name)
    if value <= 0:
        raise ConfigError(f"{name} = {row[name]} is not allowed; expected a number above 0")
    return value


def whole(row: Row, name: str) -> int:
    """A cell that holds a count, of any length. Raises ConfigError where it does not."""
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
    """What a function makes of every row; rows of which it makes nothing are left out.

    Raises ConfigError naming file and row (counted from 1) for what the function raises.
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
