"""Results of benchmark clients as figures with common names, for all clients.

Figures have the names of `vllm bench serve`'s result file: mean, median, std, percentiles of ttft, tpot, itl and e2el
in ms, throughputs per second. TPOT is a mean per request, ITL each gap of all requests. Others name them differently:

* SGLang's bench_serving: e2e_latency for e2el, total_throughput for total_token_throughput
* AIPerf and GenAI-Perf: time_to_first_token, inter_token_latency for TPOT, inter_chunk_latency for ITL,
  request_latency for e2el, avg and p50 for mean and median, each with its unit
* InferenceMAX's: vLLM's names in seconds, without `_ms`
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from graphsim.errors import ConfigError
from graphsim.files.present import expanded
from graphsim.traffic.formats import aiperf, bench_results
from graphsim.traffic.formats.answered import Answered, run_of
from graphsim.traffic.formats.cells import Record
from graphsim.traffic.formats.sources import check_file, first_characters, header, records
from graphsim.traffic.formats.timed_rows import has_times, timed_rows
from graphsim.traffic.table import Floats
from graphsim.units import short

LATENCIES = ("ttft", "tpot", "itl", "e2el")
STATISTICS = ("mean", "median", "std", "p90", "p95", "p99")
COUNTS = (
    "duration", "completed", "failed", "total_input_tokens", "total_output_tokens", "request_throughput",
    "output_throughput", "total_token_throughput",
)  # fmt: skip
FIGURES = (*COUNTS, *(f"{statistic}_{latency}_ms" for latency in LATENCIES for statistic in STATISTICS))
"""All figures, in the order in which tables show them."""

_SGLANG = {"total_throughput": "total_token_throughput"} | {
    f"{statistic}_e2e_latency_ms": f"{statistic}_e2el_ms" for statistic in STATISTICS
}
_AIPERF_LATENCIES = {
    "time_to_first_token": "ttft", "inter_token_latency": "tpot", "inter_chunk_latency": "itl",
    "request_latency": "e2el", "ttft": "ttft",
}  # fmt: skip
_AIPERF_STATISTICS = {"avg": "mean", "p50": "median"} | {name: name for name in ("std", "p90", "p95", "p99")}
_AIPERF_COUNTS = {
    "benchmark_duration": "duration", "request_count": "completed", "error_request_count": "failed",
    "total_isl": "total_input_tokens", "total_output_tokens": "total_output_tokens", "total_osl": "total_output_tokens",
    "request_throughput": "request_throughput", "output_token_throughput": "output_throughput",
    "total_token_throughput": "total_token_throughput",
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchRun:
    """A measured run.

    figures: those of FIGURES that the file holds or that follow from its requests
    answered: what it says of single requests; None where it holds aggregates only
    request_rate: requests per second that the client was told to send, inf for all at once or unknown
    max_concurrency: requests in flight at most; None where nothing limits them
    """

    path: Path
    figures: Mapping[str, float]
    answered: Answered | None = None
    request_rate: float = math.inf
    max_concurrency: int | None = None
    notes: tuple[str, ...] = ()


def read_bench(path: str | Path, run: int | None = None) -> BenchRun:
    """A result file of `vllm bench serve`, SGLang's bench_serving, AIPerf (records or aggregate) or InferenceMAX.

    Also a table of requests with measured times (arrival_s, lengths, measured_ttft_s, measured_e2e_s).
    run: which one of a file with several, counted from 1; the last by default
    Raises ConfigError naming file, line, field, value and what is allowed.
    """
    place = expanded(path)
    check_file(place)
    if place.suffix == ".parquet" or not first_characters(place).startswith("{"):
        return _of_table(place)
    keys = frozenset(map(str, next(records(place, 1)).data))
    if aiperf.matches(keys):
        return _of_requests(place, aiperf.answers(records(place, math.inf), place))
    record, notes = run_of(records(place, math.inf), place, run)
    found = _aggregate(record)
    if not any(name.startswith(("mean_", "median_")) for name in found) and "input_lens" not in record:
        raise ConfigError(
            f"{place}: keys {short(', '.join(sorted(keys)))} hold no latencies; expected a result of vllm bench serve, "
            "SGLang's bench_serving, AIPerf or InferenceMAX"
        )
    detailed = bench_results.answers(record) if "input_lens" in record and "output_lens" in record else None
    computed = figures_of(detailed) if detailed else {}
    return BenchRun(
        path=place, figures=_ordered(computed | found), answered=detailed, notes=tuple(notes),
        request_rate=bench_results.rate_of(record.data), max_concurrency=bench_results.concurrency_of(record.data),
    )  # fmt: skip


def figures_of(answered: Answered) -> dict[str, float]:
    """Figures of single requests, as `vllm bench serve` computes them from its own."""
    runs = answered.output_tokens > 0
    found: dict[str, float] = {
        "completed": float(runs.sum()), "failed": float(answered.failed),
        "total_input_tokens": float(answered.input_tokens[runs].sum()),
        "total_output_tokens": float(answered.output_tokens.sum()),
    }  # fmt: skip
    ends = answered.start_s + answered.e2e_s
    if np.isfinite(ends).any() and (duration := float(np.nanmax(ends) - np.nanmin(answered.start_s))) > 0:
        tokens = found["total_input_tokens"] + found["total_output_tokens"]
        found |= {
            "duration": duration, "request_throughput": found["completed"] / duration,
            "output_throughput": found["total_output_tokens"] / duration, "total_token_throughput": tokens / duration,
        }  # fmt: skip
    columns = (answered.ttft_s, answered.tpot_s, answered.gaps_s, answered.e2e_s)
    for latency, seconds in zip(LATENCIES, columns, strict=True):
        found |= statistics(latency, seconds)
    return _ordered(found)


def statistics(latency: str, seconds: Floats) -> dict[str, float]:
    """Mean, median, deviation and percentiles of a latency in ms; nothing where no request has one."""
    known = seconds[np.isfinite(seconds)] * 1e3
    if not len(known):
        return {}
    values = (known.mean(), np.median(known), known.std(), *np.percentile(known, [90, 95, 99]))
    return {f"{name}_{latency}_ms": float(value) for name, value in zip(STATISTICS, values, strict=True)}


def _of_requests(path: Path, answered: Answered) -> BenchRun:
    found = figures_of(answered)
    if not found["completed"]:
        raise ConfigError(f"{path}: no request of it was answered")
    return BenchRun(path=path, figures=found, answered=answered, notes=tuple(answered.notes))


def _of_table(path: Path) -> BenchRun:
    columns = header(path)
    if not has_times(columns):
        raise ConfigError(
            f"{path}: columns {short(', '.join(columns))} hold no measured times; expected a client's result in JSON, "
            "or a table with arrival_s, input_tokens, output_tokens, measured_ttft_s and measured_e2e_s"
        )
    return _of_requests(path, timed_rows(path))


def _aggregate(record: Record) -> dict[str, float]:
    """The figures of one JSON object, under any client's names."""
    inner = record.data.get("records")
    data = inner if isinstance(inner, dict) and "request_latency" in inner else record.data
    if any(isinstance(data.get(name), dict) for name in _AIPERF_LATENCIES):
        return _of_aiperf(Record(record.path, record.line, data))
    found = {}
    for key, name in [*((name, name) for name in FIGURES), *_SGLANG.items()]:
        if key in record:
            found[name] = float(record.number(key))
    for latency in LATENCIES:  # InferenceMAX's are in seconds
        for statistic in STATISTICS:
            key = f"{statistic}_{latency}"
            if key in record:
                found.setdefault(f"{key}_ms", 1e3 * record.number(key))
    return {name: value for name, value in found.items() if not _is_empty(name, value)}


def _is_empty(name: str, value: float) -> bool:
    """Whether a latency is 0, which clients write for a missing value, such as in answers that were not streamed."""
    return value == 0.0 and name.startswith(("mean_", "median_", "p9"))


def _of_aiperf(record: Record) -> dict[str, float]:
    found = {}
    for key, latency in _AIPERF_LATENCIES.items():
        if key not in record:
            continue
        metric = record.inside(key)
        for theirs, ours in _AIPERF_STATISTICS.items():
            if theirs in metric:
                found[f"{ours}_{latency}_ms"] = 1e3 * aiperf.seconds(metric, theirs, metric.data.get("unit", "ms"))
    for key, name in _AIPERF_COUNTS.items():
        if key in record:
            value = record.data[key]
            counted = (
                record.inside(key) if isinstance(value, dict) else Record(record.path, record.line, {"avg": value})
            )
            if "avg" in counted:
                found[name] = float(counted.number("avg"))
    return found


def _ordered(found: Mapping[str, float]) -> dict[str, float]:
    return {name: float(found[name]) for name in FIGURES if name in found}
