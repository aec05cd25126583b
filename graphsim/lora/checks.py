"""Checks of a `LoraConfig`'s fields: names, layers, rows of a table, ranges of layers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from graphsim.errors import ConfigError
from graphsim.units import amount_text, short

MAX_LAYERS = 100_000


def checked_names(name: str, value: Any) -> Any:
    """A string, or the names of a list as a tuple; None if nothing is named.

    Raises ConfigError, naming the field, for anything but a string or a list of names.
    """
    good = (
        value is None
        or isinstance(value, str)
        or (isinstance(value, list | tuple) and all(isinstance(entry, str) and entry for entry in value))
    )
    if not good:
        raise ConfigError(f"lora.{name} = {short(value)} is not allowed; expected a string or a list of names")
    return tuple(value) if isinstance(value, list) else value


def checked_layers(value: Any) -> tuple[int, ...] | None:
    """Indices of layers, one or several, None for all. Raises ConfigError for anything else."""
    entries = () if value is None else (value,) if isinstance(value, int) else value
    if not isinstance(entries, list | tuple) or not all(map(_is_index, entries)):
        raise ConfigError(f"lora.layers_to_transform = {short(value)} is not allowed; expected layer indices from 0")
    return None if value is None else tuple(entries)


def checked_rows(value: Any) -> tuple[int, ...] | dict[str, tuple[int, ...]]:
    """Rows of the embedding, or of each table by name. Raises ConfigError for anything else."""
    if isinstance(value, Mapping) and all(isinstance(name, str) and name for name in value):
        return {name: _rows(f"trainable_token_indices.{name}", rows) for name, rows in value.items()}
    return _rows("trainable_token_indices", value)


def _rows(field: str, value: Any) -> tuple[int, ...]:
    if isinstance(value, list | tuple) and all(map(_is_index, value)) and len(set(value)) == len(value):
        return tuple(value)
    raise ConfigError(f"lora.{field} = {short(value)} is not allowed; expected different row numbers from 0")


def checked_stretches(value: Any) -> tuple[tuple[int, int], ...]:
    """Ranges of layers (first, end). Raises ConfigError for anything else."""
    entries: list[Any] | tuple[Any, ...] = value if isinstance(value, list | tuple) else [None]
    good = all(
        isinstance(entry, list | tuple) and len(entry) == 2 and all(map(_is_index, entry)) and entry[0] < entry[1]
        for entry in entries
    )
    if not good or sum(end - start for start, end in entries) > MAX_LAYERS:
        raise ConfigError(
            f"lora.layer_replication = {short(value)} is not allowed; expected pairs of layers, the first below the "
            f"second, {amount_text(MAX_LAYERS)} layers in all at most"
        )
    return tuple((start, end) for start, end in entries)


def _is_index(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
