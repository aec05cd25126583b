"""Adapters of a trace: names in a column, indices in the table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from graphsim.traffic.table import BASE, Ints

COLUMNS = ("lora", "adapter", "lora_id", "lora_name", "adapter_id")
"""Names of a column or key that says which adapter a request wants, in the order in which they are looked for."""

NONE = frozenset({"", "-1", "none", "null", "nan", "base"})
"""What stands there for a request to the base model, in small letters."""


def column_of(names: Iterable[str], asked: str | None, also: Sequence[str] = ()) -> str | None:
    """The column that holds adapters: the one asked for, or the first known one, in any case.

    also: further names that mean an adapter in this layout
    """
    known = {name.strip().lower(): name for name in names}
    return next(
        (known[name] for name in ([asked.strip().lower()] if asked else [*COLUMNS, *also]) if name in known), None
    )


class NamedRequests:
    """Adapters of requests that are JSON objects, collected one by one.

    A key `model` counts unless another is asked for; where it says the same of all, that is the base model.
    """

    def __init__(self, asked: str | None, base: str | None) -> None:
        self._asked, self._base, self._values = asked, base, list[Any]()
        self._keys: set[str] = set()

    def add(self, data: Mapping[str, Any]) -> None:
        """Another request."""
        key = column_of(map(str, data), self._asked, ("model",))
        value = data.get(key) if key is not None else None
        self._keys |= {key.strip().lower()} if key is not None and value is not None else set()
        self._values.append(value)

    def column(self) -> tuple[list[Any] | None, list[str]]:
        """A name for each request, and what has to be said about them; None where no request has one."""
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
    """Indices of adapters for some rows, and the names behind them: whole numbers by size, texts in order of
    appearance.

    base: the name that means the base model, beside `NONE`
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
    """3 and 3.0 are one adapter; what a blank cell holds is none."""
    if value is None or value != value:
        return ""
    if isinstance(value, float | np.floating) and float(value).is_integer():
        return str(int(value))
    return str(value).strip()
