"""Time series of a served run in equal spans, for the page and the plots."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Any

import numpy as np

from graphsim.serving.adapter_events import adapter_events
from graphsim.serving.figures import grouped
from graphsim.serving.over_time import bins, tokens_until
from graphsim.serving.utilisation import running_of

if TYPE_CHECKING:
    from graphsim.serving.served_run import ServedRun

Floats = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EngineSeries:
    """One engine's part of a `Series`, under the same names."""

    waiting: Floats
    waiting_peak: Floats
    running: Floats
    running_peak: Floats
    kv: Floats
    kv_peak: Floats
    adapters: Floats
    adapters_peak: Floats


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Series:
    """Values of each span: `_peak` is the maximum over steps in it, the others are rates and means.

    Of several engines these are sums, except that `kv` is the mean and a peak is that of the fullest engine.
    at_s: middles of the spans, in seconds
    width_s: length of a span, in seconds
    sent, answered: requests per second
    tokens_per_s: generated tokens per second
    kv: used percent of the KV cache
    loads: seconds of adapter loads and switches per second
    ttft_median_s, ttft_p99_s: of requests sent in the span, in seconds
    engines: the series of each engine
    """

    at_s: Floats
    width_s: float
    sent: Floats
    answered: Floats
    tokens_per_s: Floats
    waiting: Floats
    waiting_peak: Floats
    running: Floats
    running_peak: Floats
    kv: Floats
    kv_peak: Floats
    adapters: Floats
    adapters_peak: Floats
    loads: Floats
    ttft_median_s: Floats
    ttft_p99_s: Floats
    engines: tuple[EngineSeries, ...]


def series_of(service: ServedRun, most: int | None = None) -> Series:
    """The run in `most` spans; by default 40 to 240, about one per ten requests."""
    edges = bins(service.duration_s, int(np.clip(len(service.table) / 10, 40, 240)) if most is None else most)
    width, log, done = float(edges[1] - edges[0]), service.log, service.latencies.done
    each = tuple(_engine(engine, edges) for engine in service.engines)
    loads = adapter_events(log)

    def total(name: str) -> Floats:
        return np.asarray(np.sum([getattr(engine, name) for engine in each], axis=0))

    def peak(name: str) -> Floats:
        return np.asarray(np.max([getattr(engine, name) for engine in each], axis=0))

    def rate(times: Any) -> Floats:
        return np.asarray(np.histogram(times[np.isfinite(times)], edges)[0] / width)

    first, finished = log.first_token_s[done], log.finished_s[done]
    tokens = tokens_until(edges, first, finished, service.table.output_tokens[done].astype(float))
    span = np.full(len(log.sent_s), -1)
    known = np.isfinite(log.sent_s)
    span[known] = np.minimum((log.sent_s[known] / width).astype(np.int64), len(edges) - 2)
    ttft = grouped(service.latencies.ttft_s, span, len(edges) - 1, (50.0, 99.0))
    return Series(
        at_s=(edges[1:] + edges[:-1]) / 2, width_s=width, sent=rate(log.sent_s), answered=rate(log.finished_s),
        tokens_per_s=np.diff(tokens) / width, waiting=total("waiting"), waiting_peak=peak("waiting_peak"),
        running=total("running"), running_peak=peak("running_peak"), kv=total("kv") / len(each),
        kv_peak=peak("kv_peak"), adapters=total("adapters"), adapters_peak=peak("adapters_peak"), engines=each,
        loads=np.histogram(loads[:, 0], edges, weights=loads[:, 1])[0] / width, ttft_median_s=ttft["p50"],
        ttft_p99_s=ttft["p99"],
    )  # fmt: skip


def _engine(engine: ServedRun, edges: Floats) -> EngineSeries:
    over, columns = engine.over_time, engine.over_time.columns
    values = {
        "waiting": columns["waiting"], "running": running_of(columns, engine.rules),
        "kv": 100.0 * columns["kv_blocks"] / max(engine.rules.kv_blocks, 1), "adapters": columns["adapters"],
    }  # fmt: skip
    found = {name: over.means(each, edges) for name, each in values.items()}
    return EngineSeries(**found, **{f"{name}_peak": over.peaks(each, edges) for name, each in values.items()})


def log_ticks(values: Iterable[float | None]) -> tuple[float, float, list[float]]:
    """Ends (as powers of ten) of a logarithmic axis that covers all values, and its ticks: 1, 2, 5, or only decades.

    Values that are not above 0 are left out; both ends are equal if none is left.
    """
    found = [value for value in values if value is not None and 0 < value < inf]
    if not found:
        return 0.0, 0.0, []
    low, high = float(np.log10(min(found))), float(np.log10(max(found)))
    pad = 0.06 * max(high - low, 0.3)
    low, high = low - pad, high + pad
    fine, usual = (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0), (1.0, 2.0, 5.0)
    steps = fine if high - low < 1.0 else usual if high - low < 3.2 else (1.0,)
    ticks = [step * 10.0**decade for decade in range(int(np.floor(low)), int(np.ceil(high)) + 1) for step in steps]
    return low, high, [tick for tick in ticks if low <= np.log10(tick) <= high]
