"""One axis of a sweep: the values of a choice, or of several that go together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True, slots=True, eq=False)
class Axis:
    """Choices that vary together.

    columns: the values of each choice by name, of equal length; numbers in an array, to avoid one Python object per
        number
    """

    columns: Mapping[str, Sequence[Any] | np.ndarray]

    @property
    def names(self) -> set[str]:
        """The choices."""
        return set(self.columns)

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def part(self, where: slice) -> Axis:
        """Some of its entries."""
        return Axis({name: column[where] for name, column in self.columns.items()})

    def entry(self, at: int) -> dict[str, Any]:
        """The values at one position, by choice."""
        return {name: _plain(column[at]) for name, column in self.columns.items()}


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def column_of(values: Sequence[Any]) -> Sequence[Any] | np.ndarray:
    """A column of values: an array if all are numbers, of integers if all are whole."""
    if isinstance(values, np.ndarray):
        return _whole(values) if values.dtype.kind in "iuf" else values.tolist()
    if all(type(value) in (int, float) for value in values):
        numbers = np.array(values)
        return _whole(numbers) if numbers.dtype.kind in "if" else tuple(values)
    return tuple(values)


def _whole(numbers: np.ndarray) -> np.ndarray:
    if numbers.dtype.kind != "f" or not np.all(np.abs(numbers) < 2.0**53) or np.any(numbers != np.floor(numbers)):
        return numbers
    return numbers.astype(np.int64)
