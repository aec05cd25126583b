"""BurstGPT (HPMLL/BurstGPT): seconds, tokens of request and of response, of which requests that failed have none.

Version 2 has two columns more, `Session ID` and `Elapsed time`. `Model` says who answered: no adapter unless asked for.
"""

from __future__ import annotations

from collections.abc import Set
from pathlib import Path

from graphsim.traffic.formats.found import Found
from graphsim.traffic.formats.tables import read_table
from graphsim.traffic.formats.trace import Wanted

LAYOUT = "Timestamp, Model, Request tokens, Response tokens (BurstGPT)"


def matches(columns: Set[str]) -> bool:
    """Whether a table with these columns, in small letters, is one."""
    return bool(columns & {"request tokens", "response tokens"})


def read(path: Path, wanted: Wanted) -> Found:
    """Its requests, failed ones with 0 output tokens. Raises ConfigError for what is missing or wrong."""
    return read_table(path, wanted, ["Timestamp"], ["Request tokens"], ["Response tokens"])
