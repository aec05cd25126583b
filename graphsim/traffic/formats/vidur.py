"""Vidur's traces (microsoft/vidur): arrived_at in seconds, num_prefill_tokens, num_decode_tokens."""

from __future__ import annotations

from collections.abc import Set
from pathlib import Path

from graphsim.traffic.formats.found import Found
from graphsim.traffic.formats.tables import read_table
from graphsim.traffic.formats.trace import Wanted

LAYOUT = "arrived_at, num_prefill_tokens, num_decode_tokens (Vidur)"


def matches(columns: Set[str]) -> bool:
    """Whether a table with these columns, in small letters, is one."""
    return bool(columns & {"num_prefill_tokens", "num_decode_tokens"})


def read(path: Path, wanted: Wanted) -> Found:
    """Its requests. Raises ConfigError for what is missing or wrong: files of lengths have no arrived_at."""
    return read_table(path, wanted, ["arrived_at"], ["num_prefill_tokens"], ["num_decode_tokens"])
