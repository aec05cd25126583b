"""A cache of results by the objects that describe them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable
from contextlib import suppress
from typing import Any, Generic, TypeVar

T = TypeVar("T")
ATOMS = (str, int, float, bool, type(None), bytes)
UNKEPT = object()
"""A part of a description that may be mutable: nothing is cached for it."""


class Memo(Generic[T]):
    """The latest `most` results by the parts of a description.

    Plain values and tuples of them are compared by value, everything else by identity: descriptions are frozen, and
    are kept alive while cached.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._results: OrderedDict[Hashable, tuple[Any, T]] = OrderedDict()

    def get(self, parts: Iterable[Any], make: Callable[[], T]) -> T:
        """The result for these parts, created at the first request."""
        parts = tuple(parts)
        key = tuple(map(_key, parts))
        found = self._results.get(key)
        if found is not None:
            with suppress(KeyError):  # another thread evicted it
                self._results.move_to_end(key)
            return found[1]
        result = make()
        if any(part is UNKEPT for part in parts):
            return result
        self._results[key] = (parts, result)
        if len(self._results) > self._most:
            self._results.popitem(last=False)
        return result


def _key(part: Any) -> Hashable:
    if isinstance(part, ATOMS):
        return (type(part), part)
    if isinstance(part, tuple) and len(part) <= 64 and all(isinstance(entry, str | int) for entry in part):
        return part
    return (id(part),)
