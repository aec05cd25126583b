"""Popularity and placement of experts, and the load of the busiest rank over its equal share.

Experts are popular by Zipf's law. Under expert parallelism a layer ends with its busiest rank, so its expected number
of rows over the mean of all ranks counts. The random imbalance of a finite batch, even with equally popular experts,
is not modelled.

* contiguous: experts lie in the order of their popularity, the most popular ones together: the worst case
* random: popularity and rank are independent, as where experts are distributed by number (vLLM's
  `linear` and `round_robin`, SGLang's `trivial`); the mean over placements
* balanced: redundant copies for the most popular experts, then all copies packed evenly, as EPLB does
  (https://github.com/deepseek-ai/EPLB; vLLM's `--enable-eplb`, SGLang's `--enable-eplb`)
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from graphsim.units import Num

Array = NDArray[np.float64]

PLACEMENTS = ("random", "contiguous", "balanced")

_DRAWN = 2048
"""Placements over which `random` averages: their mean is within half a percent of that of all."""


@lru_cache(maxsize=256)
def reach(experts: int, chosen: int, skew: float) -> Array:
    """The probability that a token chooses each expert, the most popular first; they add up to `chosen`.

    Proportional to rank^-skew, but never above 1: the excess of the most popular ones goes to the others.
    """
    weights = np.arange(1, experts + 1, dtype=float) ** -skew
    sure = 0
    while sure < min(chosen, experts) - 1 and (chosen - sure) * weights[sure] >= weights[sure:].sum():
        sure += 1
    found = np.ones(experts)
    found[sure:] = (chosen - sure) * weights[sure:] / weights[sure:].sum()
    return np.minimum(found, 1.0)


def hottest_ratio(
    experts: int, chosen: int, skew: float, ranks: Num, placement: str = "random", redundant: int = 0
) -> Num:
    """Rows of the busiest rank over the mean of all ranks; `ranks` may be an array over scenarios."""
    if not skew and not redundant:
        return 1.0
    each = np.asarray(ranks, dtype=float)
    known = {float(n): _ratio(experts, chosen, skew, int(n), placement, redundant) for n in np.unique(each)}
    return np.reshape([known[float(n)] for n in each.ravel()], each.shape)[()]


@lru_cache(maxsize=1024)
def _ratio(experts: int, chosen: int, skew: float, ranks: int, placement: str, redundant: int) -> float:
    if ranks <= 1:
        return 1.0
    loads = reach(experts, chosen, skew)
    held = -(-(experts + redundant) // ranks)
    if placement == "contiguous":
        hottest = loads[:held].sum()
    elif placement == "random":
        hottest = _mean_of_hottest(loads, ranks, held)
    else:
        hottest = _packed(_copies(loads, redundant), ranks, held).max()
    return max(float(hottest) * ranks / chosen, 1.0)


def _mean_of_hottest(loads: Array, ranks: int, held: int) -> float:
    padded = np.zeros((_DRAWN, ranks * held))
    padded[:, : len(loads)] = loads
    drawn = np.random.default_rng(len(loads)).permuted(padded, axis=1)
    return float(drawn.reshape(_DRAWN, ranks, held).sum(axis=2).max(axis=1).mean())


def _copies(loads: Array, redundant: int) -> Array:
    """The load of every copy, where `redundant` times one more copy goes to the expert with the most loaded copies."""
    copies = np.ones(len(loads))
    for _ in range(redundant):
        copies[np.argmax(loads / copies)] += 1.0
    return np.repeat(loads / copies, copies.astype(int))


def _packed(loads: Array, ranks: int, held: int) -> Array:
    """The load of each rank: copies, the heaviest first, go to the least loaded rank with a free place."""
    total, count = np.zeros(ranks), np.zeros(ranks)
    for load in np.sort(loads)[::-1]:
        at = np.argmin(np.where(count < held, total, np.inf))
        total[at] += load
        count[at] += 1.0
    return total


def ranks_reached(experts: int, chosen: int, ranks: Num) -> Num:
    """Expected number of distinct ranks that hold a token's experts: ranks · (1 - C(E - E/ranks, k) / C(E, k)).

    For equally popular experts; with unequal popularity this is an upper bound.
    """
    others = experts - experts / np.maximum(ranks, 1.0)
    missed: Num = 1.0
    for i in range(chosen):
        missed = missed * np.maximum(others - i, 0.0) / (experts - i)
    return ranks * (1.0 - missed)
