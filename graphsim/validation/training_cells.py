"""Cells of a table's row as texts and numbers; an empty cell is nothing said."""

from __future__ import annotations

from graphsim.errors import ConfigError
from graphsim.files.measured import Row


def text_of(row: Row, name: str) -> str:
    """What a cell says; "" where it is empty or the column is not there."""
    value = row.get(name, "")
    return "" if value is None or value != value else str(value).strip()


def number_of(row: Row, name: str, absent: float) -> float:
    """A cell's number, `absent` where nothing stands there. Raises ConfigError for anything else."""
    text = text_of(row, name)
    if not text or text == "null":
        return absent
    try:
        return float(text)
    except ValueError:
        raise ConfigError(f"{name} = {text!r} is no number") from None
