"""Straight lines between knots, as numpy draws them, at a symbol."""

from __future__ import annotations

from typing import Any

import numpy as np


class Interpolation:
    """numpy.interp over fixed knots, as a function of the place alone.

    Two with the same knots are equal, so that a tape keeps one of them.
    never_negative: whether no value of it lies below zero
    """

    def __init__(self, knots: Any, values: Any, left: Any = None, right: Any = None, period: Any = None) -> None:
        self._knots, self._values = np.array(knots, dtype=float), np.array(values, dtype=float)
        self._ends: dict[str, float | None] = {"left": left, "right": right, "period": period}
        self._key = (self._knots.tobytes(), self._values.tobytes(), left, right, period)
        outside = [end for end in (left, right) if end is not None]
        self.never_negative = bool(self._values.min(initial=np.inf) >= 0.0) and all(end >= 0.0 for end in outside)

    def __call__(self, x: Any) -> Any:
        """The value at x: a float at a number, an array at an array."""
        found = np.interp(x, self._knots, self._values, **self._ends)
        return found if isinstance(found, np.ndarray) else float(found)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Interpolation) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)
