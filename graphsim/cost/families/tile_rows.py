"""One weight under all tiles: the time of the best one as a function of the rows, of single numbers and soon."""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil, inf

Parts = tuple[float, float, float, float]
"""What a call costs apart from its rows: a row of tiles' share of the cores, and its seconds for partial sums; seconds
of a wave, and of a call."""

_FAR = 64
"""Tiles on top of each other from which on few choices are worth trying."""


class Rows:
    """Seconds of x[m, k] @ w[k, n] for one w and any m: as `tiles.fastest_s`, of one number.

    choices: parts by the rows of their tiles; whole: how far waves are whole ones
    """

    def __init__(self, choices: Mapping[float, list[Parts]], whole: float) -> None:
        self._whole, self._level = whole, 1.0 - whole
        self._known: dict[tuple[float, int], float] = {}
        self._choices = [(rows, near, _worth_trying_far(near, whole)) for rows, near in choices.items()]

    def __call__(self, m: float) -> float:
        """Seconds."""
        best = inf
        for rows, near, far in self._choices:
            high = ceil(m / rows)
            time = self._best(far, high) if high >= _FAR else self._remembered(rows, near, high)
            best = time if time < best else best
        return best

    def _remembered(self, rows: float, choices: list[Parts], high: int) -> float:
        found = self._known.get((rows, high))
        if found is None:
            found = self._known[rows, high] = self._best(choices, high)
        return found

    def _best(self, choices: list[Parts], high: int) -> float:
        """Of tiles of so many rows, so many on top of each other."""
        best, whole, level = inf, self._whole, self._level
        for share_of, partial_s, wave_s, once_s in choices:
            share = high * share_of
            waves = share * level + ceil(share) * whole
            time = (waves if waves > 1.0 else 1.0) * wave_s + (once_s + high * partial_s)
            best = time if time < best else best
        return best


def _worth_trying_far(choices: list[Parts], whole: float) -> list[Parts]:
    """Those that may be the best from _FAR on: whose time without waiting is not above that of another one with it.

    Time without waiting grows in proportion, and that of the choice that grows least has one wave's more at most.
    """
    share_of, partial_s, wave_s, once_s = min(choices, key=lambda parts: parts[0] * parts[2] + parts[1])
    if share_of * _FAR < 1.0:
        return choices
    most = (share_of * wave_s + partial_s) * _FAR + whole * wave_s + once_s
    return [c for c in choices if (c[0] * c[2] + c[1]) * _FAR + c[3] <= most * (1.0 + 1e-9)]
