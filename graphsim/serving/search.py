"""The highest value at which something still holds, in few trials: bracket, bisect, and look once more below.

A trial says whether it holds, and may say where it expects the end. What is searched should hold below a value and fail
above it; where trials contradict that, the answer is the end of the lowest stretch that holds, and says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from math import exp, floor, log

MOST_STEPS_UP = 40
"""Rounds of going up; with at least a doubling each, enough for a factor of a trillion."""
STEPS_DOWN = (2.0, 4.0, 16.0)
"""By how much less is tried where the first value fails, before the least of all."""
GUARD = 0.94
"""Of the value found: where it is examined once more, as noise near the end may let one trial hold by luck."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """The outcome of a value.

    holds: whether all limits are met
    near: where the limit is expected, as far as this trial tells
    last: whether greater values change nothing
    """

    holds: bool
    near: float | None = None
    last: bool = False


@dataclass(slots=True, kw_only=True)
class Search:
    """The parameters of a search, and what was tried.

    start: first value
    least, most: bounds, both included
    tolerance: relative accuracy of the value found
    whole: whether only whole numbers are allowed
    width: number of trials at a time
    """

    start: float
    least: float
    most: float = float("inf")
    tolerance: float = 0.02
    whole: bool = False
    width: int = 1
    tried: dict[float, Trial] = field(default_factory=dict)

    def next_up(self, value: float) -> float:
        """Above a value that holds: where its trial expects the end, or twice it."""
        near = self.tried[value].near
        further = 2.0 * value if near is None or near <= 1.3 * value else min(near * 1.1, 16.0 * value)
        return self.allowed(max(further, value + 1.0) if self.whole else further)

    def allowed(self, value: float) -> float:
        """The nearest value that may be tried."""
        value = float(floor(value + 0.5)) if self.whole else value
        return min(max(value, self.least), self.most)

    @property
    def holding(self) -> float | None:
        """The end of the lowest stretch of trials that hold; None where the lowest trial fails."""
        best = None
        for value in sorted(self.tried):
            if not self.tried[value].holds:
                break
            best = value
        return best

    @property
    def failing(self) -> float | None:
        """The lowest value that fails; None where all hold."""
        return min((value for value, trial in self.tried.items() if not trial.holds), default=None)

    @property
    def is_monotone(self) -> bool:
        """Whether no trial holds above one that fails."""
        failing = self.failing
        return failing is None or not any(trial.holds for value, trial in self.tried.items() if value > failing)

    @property
    def is_open(self) -> bool:
        """Whether everything holds, up to where greater values change nothing or are not allowed."""
        return self.failing is None

    def is_close(self, low: float, high: float) -> bool:
        """Whether nothing of interest lies between."""
        return high - low <= 1.0 if self.whole else high <= low * (1.0 + self.tolerance)

    def between(self, low: float, high: float) -> list[float]:
        """Values between two, at equal ratios, as many as may be tried at a time."""
        low = low if low > 0.0 else min(1.0, 0.5 * high)
        step = log(high / low) / (self.width + 1)
        values = [low * exp(step * (i + 1)) for i in range(self.width)]
        if self.whole:
            values = [min(max(self.allowed(value), floor(low) + 1.0), high - 1.0) for value in values]
        return sorted({value for value in values if value not in self.tried})


Trials = Callable[[Sequence[float]], Iterable[Trial]]


def search_highest(trials: Trials, search: Search) -> float | None:
    """The highest value that holds, within the search's tolerance; None where not even the least does.

    trials: outcomes for some values, in their order; called with one value at a time, or with up to `width` of them
    """
    _try(trials, search, [search.allowed(search.start)])
    _bracket(trials, search)
    _bisect(trials, search)
    found = search.holding
    if found is not None and search.failing is not None:
        below = search.allowed(GUARD * found)
        if below not in search.tried and search.least < below < found:
            _try(trials, search, [below])
            _bracket(trials, search)
            _bisect(trials, search)
    return search.holding


def _try(trials: Trials, search: Search, values: Sequence[float]) -> None:
    for value, trial in zip(values, trials(values), strict=True):
        search.tried[value] = trial


def _bracket(trials: Trials, search: Search) -> None:
    """Search until one value holds and one fails, or an end is reached."""
    if (lowest := search.failing) is not None:
        near = search.tried[lowest].near
        guesses = [near] if near is not None and near < lowest else []
        for value in map(search.allowed, [*guesses, *(lowest / step for step in STEPS_DOWN), search.least]):
            if search.holding is not None:
                return
            if value < min(search.tried):
                _try(trials, search, [value])
        return
    for _ in range(MOST_STEPS_UP):
        highest = max(search.tried)
        if search.failing is not None or search.tried[highest].last or highest >= search.most:
            return
        values, value = [search.next_up(highest)], highest
        while len(values) < search.width and (value := search.allowed(2.0 * values[-1])) > values[-1]:
            values.append(value)
        _try(trials, search, values)


def _bisect(trials: Trials, search: Search) -> None:
    """Bisect between the highest value that holds and the lowest that fails; near the expected one first."""
    while (low := search.holding) is not None and (high := search.failing) is not None:
        if search.is_close(low, high):
            return
        values = search.between(low, high)
        near = search.tried[high].near or search.tried[low].near
        if search.width == 1 and near is not None and low * 1.05 < near < high / 1.05:
            values = [search.allowed(near)]
        values = [value for value in values if value not in search.tried]
        if not values:
            return
        _try(trials, search, values)
