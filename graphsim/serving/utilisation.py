"""How full a server was, and whether it was so full that a few per cent of step time decide its latencies."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from graphsim.serving.figures import Floats
from graphsim.serving.over_time import OverTime
from graphsim.serving.rules import Rules
from graphsim.serving.run_log import RunLog
from graphsim.serving.saturation import CACHE, SEQUENCES, TOKENS, saturation_of

NEAR = 0.85
"""Share of a limit from which a server is near saturation: past it, queues grow like 1 / (1 - share)."""

FULL = {
    SEQUENCES: "max_num_seqs sequences at once", CACHE: "its KV cache in use",
    TOKENS: "max_num_batched_tokens in every step",
}  # fmt: skip
CHANCE = 1.5
"""Standard deviations of a difference that is taken to be none of chance."""
GROWS = 2.0
"""Ratio of the requests late in a run to those early in it from which a server counts as falling behind."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Utilisation:
    """Shares of time and of limits, as means over the time in which requests arrived (without the drain after it).

    load: relative to the rate at which the server would be full, see `saturation`
    limit: what would be full then
    busy: share of the time with a step under way; a server that batches is far from its limit even at 1
    kv, kv_peak: share of the KV cache's blocks in use
    running, running_peak: sequences of a step over max_num_seqs
    tokens: tokens of a step over max_num_batched_tokens
    waiting: share of the time with requests in the queue
    slots: share of the time in which one step used all adapter slots while requests waited
    early_queue, late_queue: requests without a step so far, in the second and the last quarter of that time
    early_open, late_open: requests under way, including these, in the same quarters
    rate: requests per second
    seconds: duration in which requests arrived
    """

    load: float
    limit: str
    busy: float
    kv: float
    kv_peak: float
    running: float
    running_peak: float
    tokens: float
    waiting: float
    slots: float
    early_queue: float
    late_queue: float
    early_open: float
    late_open: float
    rate: float
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)


def utilisation_of(log: RunLog, ends_s: Floats, rules: Rules, over: OverTime) -> Utilisation:
    """What a log says of it.

    ends_s: when each request ended, whichever way
    """
    columns = over.columns
    sent = log.sent_s[np.isfinite(log.sent_s)]
    end = float(sent.max()) if len(sent) > 1 and sent.max() > sent.min() else log.end_s
    start = float(sent.min()) if len(sent) else 0.0

    def mean(values: Any) -> float:
        return over.mean(np.asarray(values, dtype=float), start, end)

    def peak(values: Any) -> float:
        return float(np.max(values)) if len(values) else 0.0

    kv = columns["kv_blocks"] / max(rules.kv_blocks, 1)
    at_once = running_of(columns, rules)
    running, full_at = at_once / rules.max_num_seqs, saturation_of(columns, at_once, rules, (start, end))
    tokens = (columns["batch"] + columns["prompt_tokens"] / np.maximum(columns["steps"], 1)) / (
        rules.max_num_batched_tokens
    )
    queued = columns["waiting"] > 0
    slots = rules.adapters.max_loras
    full = queued & (columns["adapters"] >= slots) if slots else np.zeros(len(queued), dtype=bool)
    known = np.isfinite(log.sent_s)
    queue, opened = (
        [_at_once(log.sent_s[known], until[known], start + part * (end - start), start + (part + 0.25) * (end - start))
         for part in (0.25, 0.75)]
        for until in (np.fmin(log.admitted_s, ends_s), ends_s)
    )  # fmt: skip
    return Utilisation(
        load=full_at.load, limit=full_at.limit, busy=mean(np.ones(len(queued))), kv=mean(kv), kv_peak=peak(kv),
        running=mean(running), running_peak=peak(running), tokens=mean(tokens), waiting=mean(queued), slots=mean(full),
        early_queue=queue[0], late_queue=queue[1], early_open=opened[0], late_open=opened[1],
        rate=len(sent) / (end - start) if end > start else 0.0, seconds=end - start,
    )  # fmt: skip


def running_of(columns: dict[str, Floats], rules: Rules) -> Floats:
    """Sequences in the engine: those that generate and those whose prompts a step has.

    Under `prefill_first`, those that the last decode step left wait while prompts are computed.
    """
    batch, prompts = columns["batch"], columns["prompts"]
    if rules.order == "prefill_first":
        last = np.maximum.accumulate(np.where(batch > 0, np.arange(len(batch)), 0))
        batch = np.where(prompts > 0, batch[last], batch) if len(batch) else batch
    return np.minimum(batch + prompts, rules.max_num_seqs)


def _at_once(since: Floats, until: Floats, start_s: float, end_s: float) -> float:
    """How many such times lie side by side in a span, on average."""
    shared = np.minimum(until, end_s) - np.maximum(since, start_s)
    return float(np.maximum(shared, 0.0).sum() / (end_s - start_s)) if end_s > start_s else 0.0


def warnings_of(found: Utilisation, rules: Rules, step_s: float, *, open_loop: bool) -> tuple[str, ...]:
    """Sentences on what a reader of percentiles must beware of.

    step_s: mean of the run's steps
    open_loop: whether requests arrived by the clock rather than after answers
    """
    told = []
    if open_loop and _grows(found.early_queue, found.late_queue, found, step_s):
        told.append(
            f"the queue grows: {_count(found.late_queue)} requests wait in the last quarter of the time, "
            f"{_count(found.early_queue)} in the second; more comes than the server can answer, so latencies say how "
            "long the run was"
        )
    elif open_loop and _grows(found.early_open, found.late_open, found, step_s):
        told.append(
            f"the server falls behind: {_count(found.late_open)} requests are under way in the last quarter of the "
            f"time, {_count(found.early_open)} in the second; a longer run would tell where that ends"
        )
    if open_loop and found.load >= NEAR and not told:
        told.append(
            f"near saturation: the load is {min(found.load, 1.0):.0%} of what fills the server ({FULL[found.limit]}); "
            "here a few per cent of step time become minutes of queue, so trust throughput and capacity rather than "
            "percentiles"
        )
    slots = rules.adapters.max_loras
    if found.slots >= 0.5:
        told.append(
            f"adapter slots limit: for {found.slots:.0%} of the time requests waited while "
            + ("the only slot was" if slots == 1 else f"all {slots} slots were")
            + " in use (max_loras)"
        )
    return tuple(told)


def _grows(early: float, late: float, found: Utilisation, step_s: float) -> bool:
    """Whether a number of requests has doubled, to more than come in twenty steps; one that grows evenly has 7/3.

    And whether that is more than chance, which moves the mean over a quarter of the time of as many that come and stay
    independently (M/G/infinity: variance of the mean 2 * number * stay / time, at most the number's own).
    """
    number, seconds = 0.5 * (early + late), found.seconds / 4.0
    stay_s = number / found.rate if found.rate else 0.0  # Little's law
    chance = np.sqrt(2.0 * number * min(1.0, 2.0 * stay_s / seconds)) if seconds > 0 else 0.0
    return late > GROWS * early and late > 20 * step_s * found.rate and late - early > CHANCE * chance


def _count(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"
