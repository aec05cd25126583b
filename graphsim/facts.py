"""Tables of measured, counted or published facts, read with one sentence about what is wrong with a file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphsim.errors import ConfigError

if TYPE_CHECKING:
    import pandas as pd


def read_facts(path: str | Path, what: str, columns: Sequence[str] = (), **options: Any) -> pd.DataFrame:
    """A CSV or Parquet file that has these columns.

    what: the facts, for messages; options: of pandas.read_csv
    Raises ConfigError for a file that cannot be read or lacks a column.
    """
    import pandas as pd

    try:
        frame = pd.read_parquet(path) if Path(path).suffix == ".parquet" else pd.read_csv(path, **options)
    except ImportError:
        raise ConfigError(
            f"{path}: reading Parquet needs pyarrow; install it by: pip install 'graphsim[parquet]', or give CSV"
        ) from None
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:120]
        raise ConfigError(f"{path}: cannot be read as {what} ({reason})") from None
    for name in columns:
        if name not in frame.columns:
            raise ConfigError(f"{path}: column {name} is missing; needed are {', '.join(columns)}")
    return frame
