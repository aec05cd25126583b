"""Arrival times of requests: regular, Poisson or bursty, at a rate that may change.

Gaps are gamma distributed with the shape `burstiness`, as in `vllm bench serve`
(`vllm-project/vllm:vllm/benchmarks/serve.py@009e6d4`, get_request): 1 is a Poisson process, less is burstier, more is
more regular, inf is constant. There, the gaps of a run at one rate are scaled to sum to requests / rate, and those of a
ramp are not. With rates that depend on time, the k-th request arrives when the integral of the rate reaches its value.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf, isinf

import numpy as np

from graphsim.traffic.draws import Draws
from graphsim.traffic.rates import Ramp, Rate, Stage, stages_of
from graphsim.traffic.table import Floats, Ints


def arrival_times(
    rate: Rate, count: int | None, draws: Draws, *, seconds: float | None = None, burstiness: float = 1.0,
    rescales: bool = True, share: float = 1.0,
) -> Floats:  # fmt: skip
    """Arrival times in seconds from the start, sorted.

    rate: the rate of requests
    count: number of requests; None if it is random, limited by the stages or by `seconds`
    draws: random numbers
    seconds: duration
    burstiness: shape of the gamma distribution of gaps
    rescales: whether gaps are scaled so that a run at one rate, or each stage, has the expected duration
    share: fraction of the rate that applies, for example if only the first turns of conversations are drawn
    """
    if rate == inf:
        return np.zeros(count or 0)
    if isinstance(rate, Ramp) and seconds is None and count is not None:
        pace = rate.at(np.arange(count) / max(count - 1, 1)) * share
        return np.cumsum(draws.gamma(burstiness, count) / np.maximum(pace, 1e-12))
    stages = stages_of(rate, None if count is None else count / share, seconds)
    due = np.cumsum([0.0, *(stage.due for stage in stages)]) * share
    if rescales and count is not None:
        if count > round(due[-1]):  # stages may differ from whole requests by up to half a request
            due, share = due * (count / due[-1]), share * (count / due[-1])
        return _stretched(stages, due, count, burstiness, share, draws)
    at = _until(float(due[-1]), burstiness, draws) if count is None else np.cumsum(draws.gamma(burstiness, count))
    return _on_the_clock(stages, due, at, share)


def own_processes(
    rates: Floats, count: int | None, seconds: float | None, draws: Draws, *, burstiness: float, rescales: bool
) -> tuple[Floats, Ints]:
    """Arrival times and adapters if each adapter has a process of its own; the first `count` of them.

    Poisson processes do not need this: their sum is a Poisson process whose requests are distributed by rate.
    """
    total = float(rates.sum())
    horizon = seconds if seconds is not None else (count or 0) / total
    reach, every, owner = horizon, np.zeros(0), np.zeros(0, dtype=np.int64)
    while count is None or len(every) < count:
        each = [_until(rate * reach, burstiness, draws, settled=True) / rate if rate else np.zeros(0) for rate in rates]
        every, owner = np.concatenate(each), np.repeat(np.arange(len(rates)), [len(times) for times in each])
        if count is None:
            break
        reach *= 1.5
    order = np.argsort(every, kind="stable")[:count]
    times, owner = every[order], owner[order]
    if rescales and len(times):
        times = times * (horizon / times[-1])
    return times, owner


def _until(end: float, burstiness: float, draws: Draws, *, settled: bool = False) -> Floats:
    """Cumulative sums of gaps with mean 1, up to `end`.

    settled: whether the process is stationary, so that the first gap is the rest of one that began earlier
    """
    batch = int(end + 6.0 * (end / min(burstiness, 1.0)) ** 0.5 + 16)
    gaps = draws.gamma(burstiness, batch)
    if settled:
        gaps[0] = draws.uniform(1)[0] * (1.0 if isinf(burstiness) else _length_biased(burstiness, draws))
    at = np.cumsum(gaps)
    while at[-1] <= end:
        at = np.concatenate([at, at[-1] + np.cumsum(draws.gamma(burstiness, batch))])
    return at[at <= end]


def _length_biased(burstiness: float, draws: Draws) -> float:
    """The length-biased gap that contains a random moment: a gamma of shape + 1 with the same scale."""
    return float(draws.gamma(burstiness + 1.0, 1)[0] * (burstiness + 1.0) / burstiness)


def _stretched(
    stages: Sequence[Stage], due: Floats, count: int, burstiness: float, share: float, draws: Draws
) -> Floats:
    """Arrival times in stages, with the gaps in each stage scaled to its expected number of requests.

    due: expected number of requests up to each boundary between stages, from 0 at the start
    """
    whole = np.round(due).astype(np.int64)
    ends = np.minimum(whole, count)
    begins = 0.0
    found = np.zeros(count)
    for number, (stage, first, last) in enumerate(zip(stages, ends[:-1], ends[1:], strict=True)):
        if last > first:
            here = np.cumsum(draws.gamma(burstiness, int(last - first)))
            cut = last < whole[number + 1]
            length = last - first if cut else due[number + 1] - due[number]
            found[first:last] = begins + stage.when(here * (length / max(here[-1], 1e-300)) / share)
        begins += stage.seconds
    return found


def _on_the_clock(stages: Sequence[Stage], due: Floats, at: Floats, share: float) -> Floats:
    """Times in seconds at which the expected number of requests reaches given values.

    stages: the stages; beyond the last one, its final rate continues
    due: expected number of requests up to each boundary between stages, from 0 at the start
    at: the values
    share: fraction of the rate that applies
    """
    starts = np.cumsum([0.0, *(stage.seconds for stage in stages)])
    times = np.empty(len(at))
    first = 0
    for number, stage in enumerate(stages):
        last = int(np.searchsorted(at, due[number + 1], side="right"))
        if last > first:
            times[first:last] = starts[number] + stage.when((at[first:last] - due[number]) / share)
        first = max(first, last)
    final = stages[-1].rate
    pace = final.end if isinstance(final, Ramp) else final
    times[first:] = starts[-1] + (at[first:] - due[-1]) / max(pace * share, 1e-12)
    return times
