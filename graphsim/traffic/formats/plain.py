"""One row per request: arrival_s, input_tokens, output_tokens; also graphsim's own tables of served requests."""

from __future__ import annotations

from collections.abc import Set
from pathlib import Path

from graphsim.traffic.formats.found import Found
from graphsim.traffic.formats.tables import read_table
from graphsim.traffic.formats.trace import Wanted

LAYOUT = "arrival_s, input_tokens, output_tokens (plain)"


def matches(columns: Set[str]) -> bool:
    """Whether a table with these columns, in small letters, is one."""
    return "arrival_s" in columns


def read(path: Path, wanted: Wanted) -> Found:
    """Its requests. Raises ConfigError for what is missing or wrong."""
    return read_table(path, wanted, ["arrival_s"], ["input_tokens", "input_len"], ["output_tokens", "output_len"])
