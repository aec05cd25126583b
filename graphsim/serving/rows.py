"""Rows of numbers that a loop appends by the million, at eight bytes per number."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np


class Rows:
    """A list of tuples of floats, all of one length, without an object for each; `np.asarray` makes a table of it."""

    __slots__ = ("_numbers", "_width")

    def __init__(self, rows: Iterable[Sequence[float]] = ()) -> None:
        self._numbers, self._width = array("d"), 0
        self.extend(rows)

    def append(self, row: Sequence[float]) -> None:
        """Add a row. Raises ValueError if it is not as long as the others."""
        if len(row) != self._width:
            if self._width:
                raise ValueError(f"a row of {len(row)} numbers among rows of {self._width}")
            self._width = len(row)
        self._numbers.extend(row)

    def extend(self, rows: Iterable[Sequence[float]]) -> None:
        """Add rows."""
        if isinstance(rows, Rows) and self._width in (0, rows._width):
            self._width = rows._width
            self._numbers.extend(rows._numbers)
            return
        for row in rows:
            self.append(row)

    def __len__(self) -> int:
        return len(self._numbers) // self._width if self._width else 0

    def __getitem__(self, number: int) -> tuple[float, ...]:
        place = range(len(self))[number] * self._width
        return tuple(self._numbers[place : place + self._width])

    def __iter__(self) -> Iterator[tuple[float, ...]]:
        return zip(*[iter(self._numbers)] * self._width, strict=True) if self._width else iter(())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Rows) and self._width == other._width and self._numbers == other._numbers

    __hash__ = None  # type: ignore[assignment]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray[Any, Any]:
        table = np.array(self._numbers, dtype=dtype)  # a copy: an array with exported views cannot grow
        return table.reshape(-1, self._width) if self._width else table.reshape(0, 0)

    def __repr__(self) -> str:
        return f"Rows({len(self)} of {self._width})"


def plain(column: Any) -> Any:
    """A view of a column with plain Python numbers, five times faster for single items.

    A growing column, an `array`, needs none.
    """
    return column if isinstance(column, array) else column.data
