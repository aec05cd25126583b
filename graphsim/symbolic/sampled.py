"""A long sum from a few of its values: two in each of many equal strata, opposite each other.

Where a formula bends every few numbers, as one that counts pages or blocks does, its pieces are too many to go through.
In each stratum the values at a place and at its mirror image are taken, so that whatever is a line over a stratum adds
up exactly; the places move along the strata by the golden ratio, so that no period of the formula is hit again and
again. Of a sum of pages over 10⁸ numbers it is off by less than a millionth.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

STRATA = 256
"""Of each stretch."""

LONG = 2**18
"""Numbers of one sum up to which all of its values may be asked for."""

_RATIO = 1.3
"""The longest stretch, as the ratio of its ends: within it a curve is close to a line over each stratum."""

_MOVED = (np.arange(1, STRATA + 1) * ((5.0**0.5 - 1.0) / 2.0)) % 1.0
_PLACES = np.concatenate([np.arange(STRATA) + _MOVED, np.arange(STRATA) + 1.0 - _MOVED]) / STRATA


def places_in(low: Array, high: Array) -> tuple[Array, Array]:
    """Whole numbers in stretches from `low` to `high`, both counted, and how many each of them stands for.

    The places have a first axis more than the stretches.
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
