"""BurstGPT traces (HPMLL/BurstGPT): seconds, request tokens and response tokens, which are 0 for failed requests.

Version 2 also has the columns `Session ID` and `Elapsed time`. `Model` is the model that answered; it counts as an
adapter only on request.
"""

from __future__ import annotations

from collections.abc import Set
from pathlib import Path

from graphsim.traffic.formats.found import Found
from graphsim.traffic.formats.tables import read_table
from graphsim.traffic.formats.trace import Wanted

LAYOUT = "Timestamp, Model, Request tokens, Response tokens (BurstGPT)"


def matches(columns: Set[str]) -> bool:
    """Whether a table with these columns, in lower case, has this layout."""
    return bool(columns & {"request tokens", "response tokens"})


def read(path: Path, wanted: Wanted) -> Found:
    """The requests in a file; failed ones have 0 output tokens. Raises ConfigError for missing or invalid data."""
    return read_table(path, wanted, ["Timestamp"], ["Request tokens"], ["Response tokens"])
