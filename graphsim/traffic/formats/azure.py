"""Azure's LLM inference traces of 2023 and 2024 (Azure/AzurePublicDataset): date and time, prompt and answer tokens.

Times of 2023 have seven decimals and no time zone, those of 2024 a time zone and sometimes no fraction of a second.
"""

from __future__ import annotations

from collections.abc import Set
from pathlib import Path
from typing import Any

import numpy as np

from graphsim.errors import ConfigError
from graphsim.traffic.formats.cells import shown_cell
from graphsim.traffic.formats.found import Found
from graphsim.traffic.formats.tables import read_table
from graphsim.traffic.formats.trace import Wanted
from graphsim.traffic.table import Floats, Ints

LAYOUT = "TIMESTAMP, ContextTokens, GeneratedTokens (Azure)"


def matches(columns: Set[str]) -> bool:
    """Whether a table with these columns, in lower case, has this layout."""
    return bool(columns & {"contexttokens", "generatedtokens"})


def read(path: Path, wanted: Wanted) -> Found:
    """The requests in a file. Raises ConfigError for missing or invalid data."""
    return read_table(path, wanted, ["TIMESTAMP"], ["ContextTokens"], ["GeneratedTokens"], _seconds)


def _seconds(path: Path, name: str, values: Any, lines: Ints) -> Floats:
    import pandas as pd

    texts = values.astype(str)
    dates = pd.to_datetime(texts, format="ISO8601", utc=True, errors="coerce")
    wrong = (~texts.str.match(r"\d{4}-") | ~dates.dt.year.between(1970, 2200)).to_numpy()
    if wrong.any():
        row = int(wrong.argmax())
        raise ConfigError(
            f"{path}: line {lines[row]}: {name} = {shown_cell(values.iloc[row])} is not allowed; "
            "expected a date and time such as 2023-11-16 18:17:03.9799600"
        )
    return np.asarray(dates.dt.as_unit("ns").astype("int64").to_numpy() / 1e9, dtype=float)
