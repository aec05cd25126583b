"""The time of the best tile for one weight as a function of the rows, without trying all tiles."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from math import ceil, inf

import numpy as np

from graphsim.units import Num

Choice = tuple[float, float, float, float, float]
"""Rows per tile; share of the cores and seconds for partial sums per row of tiles; seconds per wave and per call."""

ROWS = 64
"""Rows of the smallest tiles; all others have a multiple."""

FEW_ROWS = 16
"""Rows of a matrix instruction, to which fewer than ROWS are padded."""

NEAR = 256
"""Number of rows of smallest tiles up to which times are tabulated; beyond, few choices are worth trying."""


class Rows:
    """Seconds of x[m, k] @ w[k, n] for one w and any m: as `tiles.fastest_s`, up to rounding.

    few: seconds of FEW_ROWS, twice as many, … ROWS rows; near: of 1, 2, … NEAR times ROWS; whole: degree of rounding
        to whole waves
    """

    def __init__(self, few: Sequence[float], near: Sequence[float], choices: Sequence[Choice], whole: float) -> None:
        self._whole, self._level = whole, 1.0 - whole
        self._few, self._near = [inf, *few], [inf, *near]
        self._far = [(_growth_s(choice), *choice) for choice in sorted(_worth_trying(choices, whole), key=_growth_s)]

    def __call__(self, m: Num) -> Num:
        """Seconds."""
        if isinstance(m, np.ndarray):
            return self._of_many(m)
        if m <= ROWS:
            return self._few[ceil(m / FEW_ROWS)]
        high = ceil(m / ROWS)
        return self._near[high] if high <= NEAR else self._beyond(m)

    def _of_many(self, m: np.ndarray) -> np.ndarray:
        few = np.array(self._few)[np.ceil(np.minimum(m, ROWS) / FEW_ROWS).astype(np.intp)]
        near = np.array(self._near)[np.ceil(np.minimum(m / ROWS, NEAR)).astype(np.intp)]
        beyond = reduce(np.minimum, [self._time_s(choice, m) for _, *choice in self._far])
        return np.where(m <= ROWS, few, np.where(m <= NEAR * ROWS, near, beyond))

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
            if growth_s * m + once_s > best:  # without waiting for whole waves
                continue
            high = ceil(m / rows)
            share = high * share_of
            waves = share * level + ceil(share) * whole
            time = (waves if waves > 1.0 else 1.0) * wave_s + (once_s + high * partial_s)
            best = time if time < best else best
        return best


def _worth_trying(choices: Sequence[Choice], whole: float) -> list[Choice]:
    """The choices that may be the best beyond NEAR: those whose lower bound is not above another one's upper bound.

    The lower bound grows in proportion to the rows; the choice that grows least waits at most for a row of tiles and a
    wave.
    """
    m = float(NEAR * ROWS)
    rows, share_of, partial_s, wave_s, once_s = min(choices, key=_growth_s)
    high = m / rows + 1.0
    most = (max(high * share_of, 1.0) + whole) * wave_s + high * partial_s + once_s
    return [choice for choice in choices if _growth_s(choice) * m + choice[-1] <= most * (1.0 + 1e-9)]


def _growth_s(choice: Choice) -> float:
    """Seconds per row, without waiting for whole waves."""
    rows, share_of, partial_s, wave_s, _ = choice
    return (share_of * wave_s + partial_s) / rows
