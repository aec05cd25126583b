"""One weight under all tiles: the time of the best one as a function of the rows, without trying all of them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from math import ceil, inf

import numpy as np

from graphsim.units import Num

Choice = tuple[float, float, float, float, float]
"""Rows of the tiles; what a row of tiles adds: its share of the cores, and seconds for partial sums; seconds of a wave,
and of a call."""

ROWS = 64
"""Rows of the smallest tiles; all others have a multiple."""

NEAR = 256
"""The smallest tiles on top of each other up to which times are listed; beyond, few choices are worth trying."""


class Rows:
    """Seconds of x[m, k] @ w[k, n] for one w and any m: as `tiles.fastest_s`, up to rounding.

    near: seconds of 1, 2, … NEAR times ROWS rows; whole: how far waves are whole ones
    """

    def __init__(self, near: Sequence[float], choices: Sequence[Choice], whole: float) -> None:
        self._whole, self._level = whole, 1.0 - whole
        self._near = [inf, *near]
        self._far = [(_growth_s(choice), *choice) for choice in sorted(_worth_trying(choices, whole), key=_growth_s)]

    def __call__(self, m: Num) -> Num:
        """Seconds."""
        if isinstance(m, np.ndarray):
            return self._of_many(m)
        high = ceil(m / ROWS)
        return self._near[high] if high <= NEAR else self._beyond(m)

    def _of_many(self, m: np.ndarray) -> np.ndarray:
        near = np.array(self._near)[np.ceil(np.minimum(m / ROWS, NEAR)).astype(np.intp)]
        beyond = reduce(np.minimum, [self._time_s(choice, m) for _, *choice in self._far])
        return np.where(m <= NEAR * ROWS, near, beyond)

    def _time_s(self, choice: Sequence[float], m: np.ndarray) -> np.ndarray:
        rows, share_of, partial_s, wave_s, once_s = choice
        high = np.ceil(m / rows)
        share = high * share_of
        waves = share * self._level + np.ceil(share) * self._whole
        found: np.ndarray = np.maximum(waves, 1.0) * wave_s + (once_s + high * partial_s)
        return found

    def _beyond(self, m: float) -> float:
        best, whole, level = inf, self._whole, self._level
        for growth_s, rows, share_of, partial_s, wave_s, once_s in self._far:
            if growth_s * m + once_s > best:  # without waiting
                continue
            high = ceil(m / rows)
            share = high * share_of
            waves = share * level + ceil(share) * whole
            time = (waves if waves > 1.0 else 1.0) * wave_s + (once_s + high * partial_s)
            best = time if time < best else best
        return best


def _worth_trying(choices: Sequence[Choice], whole: float) -> list[Choice]:
    """Those that may be the best beyond NEAR: whose time without waiting is not above that of another one with it.

    Time without waiting grows in proportion; the choice that grows least waits for a row of tiles and a wave at most.
    """
    m = float(NEAR * ROWS)
    rows, share_of, partial_s, wave_s, once_s = min(choices, key=_growth_s)
    high = m / rows + 1.0
    most = (max(high * share_of, 1.0) + whole) * wave_s + high * partial_s + once_s
    return [choice for choice in choices if _growth_s(choice) * m + choice[-1] <= most * (1.0 + 1e-9)]


def _growth_s(choice: Choice) -> float:
    """Seconds per row, without waiting."""
    rows, share_of, partial_s, wave_s, _ = choice
    return (share_of * wave_s + partial_s) / rows
