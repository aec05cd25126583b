"""Cells of a table's row as texts and numbers; an empty cell is a missing value."""

from __future__ import annotations

from graphsim.errors import ConfigError
from graphsim.files.measured import Row


def text_of(row: Row, name: str) -> str:
    """The text of a cell; "" if it is empty or the column is missing."""
    value = row.get(name, "")
    return "" if value is None or value != value else str(value).strip()


def number_of(row: Row, name: str, absent: float) -> float:
    """A cell's number, `absent` if it is empty. Raises ConfigError for anything else."""
    text = text_of(row, name)
    if not text or text == "null":
        return absent
    try:
        return float(text)
    except ValueError:
        raise ConfigError(f"{name} = {text!r} is not a number") from None
