"""The largest micro-batch and the longest sequence whose training step fits in a device's memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphsim.deployment.deployment import Deployment, HardwareRef, ModelRef
from graphsim.training.estimate import TrainEstimate
from graphsim.training.train import train
from graphsim.units import checked_number

Fits = Callable[[NDArray[np.float64]], Any]
"""Whether each of some numbers fits; if one fits, so do all smaller ones."""

AT_ONCE = 33
"""Numbers that one call tries between the largest that is known to fit and the next that does not."""

MOST_SEQUENCES, MOST_TOKENS = 2**16, 2**26

CLOSE = 1e-3
"""Relative accuracy if the allocator has to be replayed for each trial."""


def largest_micro_batch(
    model: ModelRef | Deployment, hardware: HardwareRef | None = None, *, most: int = MOST_SEQUENCES, **described: Any
) -> int:
    """The largest micro-batch, in sequences, that fits on a device; 0 if not even one sequence does.

    most: upper end of the search; described: arguments of `train`, except `batch`
    Accurate to a thousandth, or to one sequence if that is more. Raises the same errors as `train`.
    """
    most = checked_number("most", most, 1, MOST_SEQUENCES, one=True)
    return _searched(lambda batch: train(model, hardware, **{**described, "batch": batch}), most)


def longest_sequence(
    model: ModelRef | Deployment, hardware: HardwareRef | None = None, *, most: int = MOST_TOKENS, **described: Any
) -> int:
    """The longest sequence, in tokens, that fits on a device; 0 if not even one token does.

    most: upper end of the search; described: arguments of `train`, except `seq_len`
    The model's number of positions is not checked. Accurate to a thousandth, or to one token if that is more. Raises
    the same errors as `train`.
    """
    most = checked_number("most", most, 1, MOST_TOKENS, one=True)
    return _searched(lambda seq_len: train(model, hardware, **{**described, "seq_len": seq_len}), most)


def _searched(step: Callable[[Any], TrainEstimate], most: int) -> int:
    """The largest number whose step fits: an upper bound from allocated memory, then the exact one from the
    allocator's replay.
    """

    def allocated(tried: NDArray[np.float64]) -> Any:
        memory = step(tried).memory
        return memory.total_bytes <= memory.capacity_bytes

    high = largest(allocated, most)
    return closest(lambda tried: bool(step(float(tried)).memory.fits), high)


def closest(fits: Callable[[int], bool], high: int) -> int:
    """The largest whole number up to `high` that fits, to a thousandth of it; 0 if none does."""
    if high < 1 or fits(high):
        return high
    low, step = 0, max(1, high // 16)
    while low == 0 and high > 1:  # not far below as a rule
        tried = max(high - step, 1)
        if fits(tried):
            low = tried
        else:
            high, step = tried, 2 * step
    while high - low > max(1, int(CLOSE * high)):
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def largest(fits: Fits, most: int) -> int:
    """The largest whole number from 1 to `most` that fits, 0 if none does: powers of two, then ever finer grids."""
    tried = np.unique(np.append(2.0 ** np.arange(int(np.log2(most)) + 1), float(most)))
    low, high = _between(fits, tried)
    while high - low > 1.5 and high < np.inf:
        tried = np.unique(np.round(np.linspace(low, high, AT_ONCE + 2)))[1:-1]
        found, above = _between(fits, tried)
        low, high = max(low, found), min(high, above)
    return int(low)


def _between(fits: Fits, tried: NDArray[np.float64]) -> tuple[float, float]:
    """The last number before the first that does not fit, 0 if there is none, and that first one."""
    good = np.broadcast_to(np.asarray(fits(tried), dtype=bool), tried.shape)
    first = int(np.argmin(good)) if not good.all() else len(tried)
    return (float(tried[first - 1]) if first else 0.0), (float(tried[first]) if first < len(tried) else np.inf)
