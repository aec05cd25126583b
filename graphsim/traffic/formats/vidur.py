"""Vidur traces (microsoft/vidur): arrived_at in seconds, num_prefill_tokens, num_decode_tokens."""

from __future__ import annotations

from collections.abc import Set
from pathlib import Path

from graphsim.traffic.formats.found import Found
from graphsim.traffic.formats.tables import read_table
from graphsim.traffic.formats.trace import Wanted

LAYOUT = "arrived_at, num_prefill_tokens, num_decode_tokens (Vidur)"


def matches(columns: Set[str]) -> bool:
    """Whether a table with these columns, in lower case, has this layout."""
    return bool(columns & {"num_prefill_tokens", "num_decode_tokens"})


def read(path: Path, wanted: Wanted) -> Found:
    """The requests in a file. Raises ConfigError for missing or invalid data: files of lengths lack arrived_at."""
    return read_table(path, wanted, ["arrived_at"], ["num_prefill_tokens"], ["num_decode_tokens"])
