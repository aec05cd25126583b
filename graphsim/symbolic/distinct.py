"""Costly functions at the distinct values of their arguments only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

FEW = 256
"""Arrays of at most this number of values are not searched for equal ones."""

_SAMPLE, _DIFFERENT = 64, 56
"""Values of an array that are examined, and the number of distinct ones from which a search for equal values does not
pay.
"""


def at_distinct(function: Callable[..., Any], arguments: Sequence[Any]) -> Any:
    """function(arguments), elementwise, evaluated once per distinct combination.

    Arguments that vary along separate dimensions span a grid of distinct values; those that share a dimension are
    passed on unchanged.
    """
    arrays = [value for value in arguments if isinstance(value, np.ndarray) and value.size > FEW]
    groups = _by_array(arguments)
    if not any(map(_repeats, arrays)) or not _apart([arguments[members[0]] for members in groups]):
        return function(*arguments)
    reduced, place = [_plain(value) for value in arguments], []
    for dimension, members in enumerate(groups):
        values, back = np.unique(arguments[members[0]], return_inverse=True)
        for i in members:
            reduced[i] = values.reshape([-1 if j == dimension else 1 for j in range(len(groups))])
        place.append(back.reshape(arguments[members[0]].shape))
    return np.broadcast_to(function(*reduced), [np.size(reduced[members[0]]) for members in groups])[tuple(place)]


def _repeats(array: np.ndarray) -> bool:
    """Whether values of an array seem to repeat."""
    some = array.ravel()[:: max(array.size // _SAMPLE, 1)][:_SAMPLE]
    return len(set(some.tolist())) < _DIFFERENT


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.ndarray) and value.size == 1 else value


def _by_array(arguments: Sequence[Any]) -> list[list[int]]:
    """Positions of the arguments that are arrays; identical arrays grouped together."""
    groups: dict[int, list[int]] = {}
    for i, value in enumerate(arguments):
        if isinstance(value, np.ndarray) and value.size > 1:
            groups.setdefault(id(value), []).append(i)
    return list(groups.values())


def _apart(arrays: Sequence[Any]) -> bool:
    """Whether no two arrays vary along the same dimension (counted from the last)."""
    seen: set[int] = set()
    for array in arrays:
        own = {array.ndim - i for i, length in enumerate(array.shape) if length > 1}
        if own & seen:
            return False
        seen |= own
    return True
