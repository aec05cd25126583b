"""A front end that blocks while it reports metrics: vLLM's `/metrics`, read repeatedly.

The process that takes requests and streams tokens also writes its metrics, and does nothing else during that time. With
adapters, `vllm:lora_requests_info` keeps a line for every combination of running and waiting adapters so far
(vLLM 0.8.5, vllm/v1/metrics/loggers.py: labels of a gauge), so that each reading takes longer than the last. Requests
that arrive and tokens that become ready during a reading are handled after it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from graphsim.serving.run_log import RunLog
from graphsim.traffic.table import BASE, RequestTable

Floats = np.ndarray[Any, np.dtype[np.float64]]
SEED = 20250527


@dataclass(frozen=True, slots=True, kw_only=True)
class Scrapes:
    """Interval of metric readings and the time to write their lines.

    pause_s: seconds from the end of one reading to the start of the next
    line_s: seconds per combination of adapters seen so far
    name_s: additional seconds for each adapter in a combination
    """

    pause_s: float
    line_s: float
    name_s: float


def told_later(table: RequestTable, log: RunLog, ends_s: Floats, scrapes: Scrapes, until_s: float) -> None:
    """Delay the times of a log by metric readings, as observed by the client.

    ends_s: end times of the engine's steps, at each of which the gauge is set, in seconds
    The steps do not change: a request that is received later is admitted later by the same time.
    """
    start, end = _readings(table, log, ends_s, scrapes, until_s)
    taken = _after(log.sent_s, start, end) - log.sent_s
    shifted = {
        name: _after(getattr(log, name) + taken, start, end) for name in ("first_token_s", "finished_s")
    }  # fmt: skip
    log.first_token_s, log.finished_s = shifted["first_token_s"], shifted["finished_s"]
    log.received_s, log.admitted_s = log.received_s + taken, log.admitted_s + taken


def _readings(
    table: RequestTable, log: RunLog, ends_s: Floats, scrapes: Scrapes, until_s: float
) -> tuple[Floats, Floats]:
    """Start and end times of the readings, in seconds."""
    seen_s, names = combinations(table, log, ends_s)
    cost = np.concatenate([[0.0], np.cumsum(scrapes.line_s + scrapes.name_s * names)])
    starts, lengths, now = [], [], 0.0
    while now < until_s:
        now += scrapes.pause_s
        seconds = float(cost[np.searchsorted(seen_s, now)])
        starts.append(now)
        lengths.append(seconds)
        now += seconds
    begin = np.array(starts)
    return begin, begin + np.array(lengths)


def _after(times: Floats, start: Floats, end: Floats) -> Floats:
    """The times, with those within a reading moved to its end."""
    at = np.maximum(np.searchsorted(start, times, side="right") - 1, 0)
    within = (times >= start[at]) & (times < end[at])
    return np.asarray(np.where(within, end[at], times))


def combinations(table: RequestTable, log: RunLog, ends_s: Floats) -> tuple[Floats, Floats]:
    """Time at which each combination of waiting and running adapters is first reported, and its number of adapters.

    A request waits until its first token and runs until its last one. Combinations are identified by sums of random
    numbers, for which collisions are negligibly rare.
    """
    who = np.flatnonzero(np.isfinite(log.received_s) & (table.adapter != BASE))
    adapters = table.adapter[who]
    moments = np.concatenate([log.received_s[who], log.first_token_s[who], log.finished_s[who]])
    kinds, of = np.repeat([0, 1, 2], len(who)), np.tile(adapters, 3)
    known = np.isfinite(moments)
    steps = np.searchsorted(ends_s, moments[known])
    order = np.lexsort((kinds[known], moments[known]))
    events = zip(steps[order].tolist(), kinds[known][order].tolist(), of[known][order].tolist(), strict=True)
    return _told(events, int(adapters.max(initial=0)) + 1, ends_s)


def _told(events: Any, adapters: int, ends_s: Floats) -> tuple[Floats, Floats]:
    draw = np.random.default_rng(SEED)
    marks = draw.integers(1, 2**62, size=(2, adapters)).tolist()
    counts = [[0] * adapters, [0] * adapters]
    total, named, last = 0, 0, 0
    seen, moments, names = {0}, [], []
    for step, kind, adapter in events:
        if step != last:
            if total not in seen:
                seen.add(total)
                moments.append(last)
                names.append(named)
            last = step
        for tier, change in ((0, 1),) if kind == 0 else ((0, -1), (1, 1)) if kind == 1 else ((1, -1),):
            held = counts[tier]
            held[adapter] += change
            if held[adapter] == (1 if change > 0 else 0):
                total += change * marks[tier][adapter]
                named += change
    last_step = max(len(ends_s) - 1, 0)
    return ends_s[np.minimum(moments, last_step)] if moments else np.zeros(0), np.array(names, dtype=float)
