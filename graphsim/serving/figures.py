"""Latencies of requests as columns, and their statistics."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphsim.errors import ConfigError
from graphsim.serving.run_log import FINISHED, STATUSES, TIMED_OUT, TOO_LONG, RunLog
from graphsim.traffic.table import RequestTable
from graphsim.units import short

Floats = np.ndarray[Any, np.dtype[np.float64]]
Ints = np.ndarray[Any, np.dtype[np.int64]]
Flags = np.ndarray[Any, np.dtype[np.bool_]]

PERCENTILES = (90.0, 95.0, 99.0)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Latencies:
    """Latencies of each request, in seconds from when its client sent it; nan if it did not get that far.

    ttft_s: to the first token
    tpot_s: mean per further token, for answers with more than one
    e2e_s: to the last token
    done: whether it was answered
    """

    ttft_s: Floats
    tpot_s: Floats
    e2e_s: Floats
    done: Flags


def latencies_of(table: RequestTable, log: RunLog) -> Latencies:
    """The latencies of a run. TPOT = (E2E - TTFT) / (output tokens - 1), as in `vllm bench serve`."""
    done = log.status == STATUSES.index(FINISHED)
    further = np.where(table.output_tokens > 1, table.output_tokens - 1.0, np.nan)
    e2e_s = np.where(done, log.finished_s - log.sent_s, np.nan)
    tpot_s = np.where(done, (log.finished_s - log.first_token_s) / further, np.nan)
    return Latencies(ttft_s=log.first_token_s - log.sent_s, tpot_s=tpot_s, e2e_s=e2e_s, done=done)


def ends_of(log: RunLog, timeout_s: float) -> Floats:
    """When each request ended for its client; the end of the run for requests that were cut off; nan for requests that
    were never sent.
    """
    given_up = np.fmin(log.sent_s + timeout_s, log.end_s)
    turned_away = np.where(np.isnan(log.received_s), log.sent_s, log.received_s)
    by_status = {TIMED_OUT: given_up, TOO_LONG: turned_away}
    ends = np.where(np.isnan(log.sent_s), np.nan, log.end_s)
    for status, values in by_status.items():
        ends = np.where(log.status == STATUSES.index(status), values, ends)
    return np.asarray(np.where(np.isnan(log.finished_s), ends, log.finished_s))


def percentile_name(share: float) -> str:
    """`p99`, `p99.9`."""
    return f"p{int(share) if share == int(share) else share}"


def checked_percentiles(percentiles: Iterable[float]) -> tuple[float, ...]:
    """The shares in percent. Raises ConfigError where one is not from 0 to 100."""
    found = tuple(percentiles)
    for share in found:
        if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share <= 100:
            raise ConfigError(f"percentiles = {short(share)} is not allowed; expected numbers from 0 to 100")
    return found


def statistics(values: Floats, percentiles: Sequence[float]) -> dict[str, float]:
    """`mean`, `median`, `std` (of the whole population) and percentiles, interpolated; nan where there is nothing."""
    names = [percentile_name(share) for share in percentiles]
    if not len(values):
        return dict.fromkeys(("mean", "median", "std", *names), float("nan"))
    ends = np.percentile(values, [50.0, *percentiles])
    found = {"mean": float(values.mean()), "median": float(ends[0]), "std": float(values.std())}
    return found | {name: float(value) for name, value in zip(names, ends[1:], strict=True)}


def weighted_statistics(values: Floats, counts: Floats, percentiles: Sequence[float]) -> dict[str, float]:
    """`statistics` of a list in which each value is repeated according to its count."""
    kept = counts > 0
    values, counts = values[kept], counts[kept]
    if not len(values):
        return statistics(values, percentiles)
    order = np.argsort(values)
    values, upto = values[order], np.cumsum(counts[order])
    total = upto[-1]
    places = np.array([50.0, *percentiles]) / 100.0 * (total - 1.0)
    below = values[np.searchsorted(upto, np.floor(places), side="right")]
    above = values[np.searchsorted(upto, np.ceil(places), side="right")]
    ends = below + (places - np.floor(places)) * (above - below)
    mean = float(values @ counts[order] / total)
    std = float(np.sqrt((values - mean) ** 2 @ counts[order] / total))
    found = {"mean": mean, "median": float(ends[0]), "std": std}
    return found | {percentile_name(share): float(value) for share, value in zip(percentiles, ends[1:], strict=True)}


def grouped(values: Floats, group: Ints, groups: int, percentiles: Sequence[float]) -> dict[str, Floats]:
    """`mean` and percentiles of each of the groups, which are numbered from 0; nan in empty ones."""
    known = np.isfinite(values) & (group >= 0)
    values, group = values[known], group[known]
    order = np.lexsort((values, group))
    values, group = values[order], group[order]
    start = np.searchsorted(group, np.arange(groups))
    count = np.searchsorted(group, np.arange(groups), side="right") - start
    if not len(values):
        return {name: np.full(groups, np.nan) for name in ("mean", *map(percentile_name, percentiles))}
    sums = np.bincount(group, weights=values, minlength=groups)
    found = {"mean": np.where(count > 0, sums / np.maximum(count, 1), np.nan)}
    last = len(values) - 1
    for share in percentiles:
        place = share / 100.0 * np.maximum(count - 1, 0)
        below = np.minimum(start + np.floor(place).astype(np.int64), last)
        above = np.minimum(start + np.ceil(place).astype(np.int64), last)
        value = values[below] + (place - np.floor(place)) * (values[above] - values[below])
        found[percentile_name(share)] = np.where(count > 0, value, np.nan)
    return found
