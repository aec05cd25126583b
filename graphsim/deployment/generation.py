"""Summing a step's time over a growing context, without a step per token.

One scenario: all steps are one array over the context. Many scenarios: the time is piecewise linear in the context
(max-plus arithmetic of linear costs), so an interval whose probes lie on the chord is summed in closed form, any other
is halved.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from graphsim.symbolic.sampled import LONG, long_sum
from graphsim.units import Num

CHUNK = 8192
PROBES = (0.0, 0.31830989, 0.70710678, 1.0)
"""Probed positions of an interval: its ends and two points where kinks are unlikely."""

StepTime = Callable[[NDArray[np.float64], NDArray[np.intp] | None], Num]
"""Time of a step at given contexts; the second argument selects scenarios (None: all of them, or just one)."""


def sum_steps(step: StepTime, first: float, count: float) -> float:
    """Sum of step(c) for `count` contexts from `first` on, of one scenario; more than LONG of them are sampled."""
    if count > LONG:
        return long_sum(lambda contexts: np.broadcast_to(step(contexts, None), contexts.shape), first, count)
    total, done = 0.0, 0.0
    while done < count:
        size = min(count - done, CHUNK)
        contexts = first + done + np.arange(size)
        times = np.asarray(step(contexts, None))
        total += float((times if times.shape == contexts.shape else np.broadcast_to(times, contexts.shape)).sum())
        done += size
    return total


@dataclass(slots=True)
class _Intervals:
    """Contexts low..high (whole numbers, both counted) of scenario `row`."""

    row: NDArray[np.intp]
    low: NDArray[np.float64]
    high: NDArray[np.float64]


def sum_steps_many(step: StepTime, first: Num, count: Num, tolerance: float = 1e-12) -> NDArray[np.float64]:
    """Sum of step(c) for `count` contexts from `first` on, for every scenario of the arrays.

    tolerance: how far, relative to the step, a probe may lie off the chord before an interval is halved;
    at 1e-12 the sum of curved costs, too, is that of single scenarios to 1e-12.
    """
    first, count = np.broadcast_arrays(np.asarray(first, dtype=float), np.asarray(count, dtype=float))
    total = np.zeros(first.shape)
    rows = np.flatnonzero(count > 0)
    todo = _Intervals(row=rows, low=first[rows], high=first[rows] + count[rows] - 1.0)
    selected: NDArray[np.intp] | None = None if len(rows) == len(first) else rows
    while len(todo.row):
        straight, sums = _probe(step, todo, selected, tolerance)
        np.add.at(total, todo.row[straight], sums[straight])
        todo = _halve(todo, ~straight)
        selected = todo.row
    return total


def _probe(
    step: StepTime, todo: _Intervals, selected: NDArray[np.intp] | None, tolerance: float
) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    span = todo.high - todo.low
    contexts = np.stack([todo.low + np.floor(part * span) for part in PROBES])
    times = np.broadcast_to(np.asarray(step(contexts, selected), dtype=float), contexts.shape)
    slope = (times[-1] - times[0]) / np.maximum(span, 1.0)
    off = np.max(np.abs(times - (times[0] + slope * (contexts - todo.low))), axis=0)
    straight = (off <= tolerance * times[-1]) | (span <= 1.0)
    return straight, (times[0] + times[-1]) / 2.0 * (span + 1.0)


def _halve(todo: _Intervals, bent: NDArray[np.bool_]) -> _Intervals:
    row, low, high = todo.row[bent], todo.low[bent], todo.high[bent]
    middle = np.floor((low + high) / 2.0)
    return _Intervals(
        row=np.concatenate([row, row]), low=np.concatenate([low, middle + 1.0]), high=np.concatenate([middle, high])
    )
