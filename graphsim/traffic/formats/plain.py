"""Plain tables with one row per request: arrival_s, input_tokens, output_tokens; also graphsim's own result tables."""

from __future__ import annotations

from collections.abc import Set
from pathlib import Path

from graphsim.traffic.formats.found import Found
from graphsim.traffic.formats.tables import read_table
from graphsim.traffic.formats.trace import Wanted

LAYOUT = "arrival_s, input_tokens, output_tokens (plain)"


def matches(columns: Set[str]) -> bool:
    """Whether a table with these columns, in lower case, has this layout."""
    return "arrival_s" in columns


def read(path: Path, wanted: Wanted) -> Found:
    """The requests in a file. Raises ConfigError for missing or invalid data."""
    return read_table(path, wanted, ["arrival_s"], ["input_tokens", "input_len"], ["output_tokens", "output_len"])
