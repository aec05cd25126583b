"""A long sum from samples: two symmetric ones in each of many equal strata.

A formula with frequent kinks, such as one that counts pages or blocks, has too many pieces to enumerate. Each stratum
is sampled at a position and its mirror image, so that functions linear over a stratum are summed exactly; the positions
shift between strata by the golden ratio, to avoid resonance with periods of the formula. For a sum of pages over 10⁸
numbers the error is below a millionth.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

STRATA = 256
"""Strata per range."""

LONG = 2**18
"""Length of a sum up to which all of its values may be evaluated."""

_RATIO = 1.3
"""The longest range, as the ratio of its ends: within it a curve is nearly linear over each stratum."""

_MOVED = (np.arange(1, STRATA + 1) * ((5.0**0.5 - 1.0) / 2.0)) % 1.0
_PLACES = np.concatenate([np.arange(STRATA) + _MOVED, np.arange(STRATA) + 1.0 - _MOVED]) / STRATA


def places_in(low: Array, high: Array) -> tuple[Array, Array]:
    """Sample positions in ranges from `low` to `high`, inclusive, and the number of values that each stands for.

    The positions have one more leading axis than the ranges.
    """
    length = high - low + 1.0
    places = low + np.floor(np.multiply.outer(_PLACES, length))
    return np.minimum(places, high), length / len(_PLACES)


def long_sum(value: Callable[[Array], Array], first: float, count: float) -> float:
    """The sum of a function over `count` whole numbers from `first` on, many more than LONG: those ahead one by one."""
    ahead = first + np.arange(float(STRATA))
    total = float(np.sum(value(ahead)))
    low, last = first + STRATA, first + count - 1.0
    while low <= last:
        high = min(last, max(np.floor(_RATIO * low), low + 2.0 * STRATA))
        places, each = places_in(np.array([low]), np.array([high]))
        total += float(np.sum(value(places[:, 0])) * each[0])
        low = high + 1.0
    return total
