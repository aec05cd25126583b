"""Adapters of a trace: names in a column, indices in the table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from graphsim.traffic.table import BASE, Ints

COLUMNS = ("lora", "adapter", "lora_id", "lora_name", "adapter_id")
"""Names of columns or keys with a request's adapter, in search order."""

NONE = frozenset({"", "-1", "none", "null", "nan", "base"})
"""Values that mean the base model, in lower case."""


def column_of(names: Iterable[str], asked: str | None, also: Sequence[str] = ()) -> str | None:
    """The column with adapters, regardless of case; None if there is none.

    names: all columns
    asked: the requested column; by default the first known one
    also: further names for an adapter in this layout
    """
    known = {name.strip().lower(): name for name in names}
    return next(
        (known[name] for name in ([asked.strip().lower()] if asked else [*COLUMNS, *also]) if name in known), None
    )


class NamedRequests:
    """Collects the adapters of requests that are JSON objects.

    The key `model` is used unless another is requested; if it has the same value for all, that is the base model.
    """

    def __init__(self, asked: str | None, base: str | None) -> None:
        self._asked, self._base, self._values = asked, base, list[Any]()
        self._keys: set[str] = set()

    def add(self, data: Mapping[str, Any]) -> None:
        """Add a request."""
        key = column_of(map(str, data), self._asked, ("model",))
        value = data.get(key) if key is not None else None
        self._keys |= {key.strip().lower()} if key is not None and value is not None else set()
        self._values.append(value)

    def column(self) -> tuple[list[Any] | None, list[str]]:
        """The adapter name of each request, or None if no request has one; and notes on them."""
        if not self._keys:
            return None, []
        if self._asked or self._keys != {"model"}:
            return self._values, []
        names = {_text(value) for value in self._values} - {""}
        if len(names) == 1:
            return None, []
        note = f"{len(names)} names of model are taken as adapters; base=… says which of them is the base model"
        return self._values, [] if self._base in names else [note]


def numbered(values: Sequence[Any] | None, rows: Ints, base: str | None) -> tuple[Ints, tuple[str, ...]]:
    """Adapter indices for some rows, and the names of the adapters: integers in ascending order, texts in order of
    appearance.

    values: adapter of each request
    rows: the rows that are used
    base: a name that means the base model, in addition to `NONE`
    """
    if values is None:
        return np.full(len(rows), BASE, dtype=np.int64), ()
    none = NONE | ({base.strip().lower()} if base else set())
    texts = [_text(values[row]) for row in rows.tolist()]
    names = list(dict.fromkeys(text for text in texts if text.lower() not in none))
    if all(name.isascii() and name.isdigit() for name in names):
        names.sort(key=lambda name: (len(name), name))
    index = {name: number for number, name in enumerate(names)}
    return np.array([index.get(text, BASE) for text in texts], dtype=np.int64), tuple(names)


def _text(value: Any) -> str:
    """The name of an adapter as text: 3 and 3.0 are the same; a blank cell means none."""
    if value is None or value != value:
        return ""
    if isinstance(value, float | np.floating) and float(value).is_integer():
        return str(int(value))
    return str(value).strip()
