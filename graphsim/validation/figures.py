"""Figures of server benchmarks, by their names in tables: `ttft_ms`, `p99_itl_ms`, `tput_per_gpu`, …"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

Values = np.ndarray[Any, Any]


class Answered(Protocol):
    """Answered requests: times in seconds from the start, gaps between tokens with counts, duration of the run."""

    @property
    def sent_s(self) -> Values:
        """Time at which each request was sent, in seconds."""

    @property
    def input_tokens(self) -> Values:
        """Prompt tokens of each request."""

    @property
    def output_tokens(self) -> Values:
        """Generated tokens of each request."""

    @property
    def gap_s(self) -> Values:
        """Gaps between tokens, in seconds."""

    @property
    def gap_tokens(self) -> Values:
        """Number of tokens that came after each such gap."""

    @property
    def ttft_s(self) -> Values:
        """Time to first token of each request, in seconds."""

    @property
    def e2e_s(self) -> Values:
        """Time to the last token of each request, in seconds."""

    @property
    def tpot_s(self) -> Values:
        """Mean time per token after the first, of each request with several tokens, in seconds."""

    @property
    def duration_s(self) -> float:
        """Seconds from the first request to the last answer."""


_TIME = re.compile(r"(?:(mean|median|std|p\d+(?:\.\d+)?)_)?(ttft|tpot|itl|e2el|e2e|e2e_latency)_ms")
_RATES: dict[str, Callable[[Answered], float]] = {
    "output_tput": lambda found: float(found.output_tokens.sum()) / found.duration_s,
    "output_throughput": lambda found: float(found.output_tokens.sum()) / found.duration_s,
    "output_tok_s": lambda found: float(found.output_tokens.sum()) / found.duration_s,
    "tput": lambda found: float((found.output_tokens + found.input_tokens).sum()) / found.duration_s,
    "total_token_throughput": lambda found: float((found.output_tokens + found.input_tokens).sum()) / found.duration_s,
    "request_throughput": lambda found: len(found.sent_s) / found.duration_s,
}  # fmt: skip
PER_DEVICE = "_per_gpu"


def is_figure(name: str) -> bool:
    """Whether a column of this name has a figure that a simulated loop of requests gives."""
    return bool(_TIME.fullmatch(name)) or name.removesuffix(PER_DEVICE) in _RATES


def figure(found: Answered, name: str, devices: float) -> float:
    """A figure by its name, in the unit that the name implies: milliseconds, or tokens or requests per second."""
    if time := _TIME.fullmatch(name):
        return 1e3 * _of_times(found, time[1] or "mean", time[2])
    rate = _RATES[name.removesuffix(PER_DEVICE)](found)
    return rate / devices if name.endswith(PER_DEVICE) else rate


def _of_times(found: Answered, statistic: str, what: str) -> float:
    if what == "itl":
        return _weighted(found.gap_s, found.gap_tokens, statistic)
    seconds = found.ttft_s if what == "ttft" else found.tpot_s if what == "tpot" else found.e2e_s
    return _weighted(seconds, np.ones(len(seconds)), statistic)


def _weighted(values: np.ndarray[Any, Any], weights: np.ndarray[Any, Any], statistic: str) -> float:
    """Weighted mean, standard deviation, median or percentile of values."""
    if not len(values):
        return float("nan")
    mean = float(np.average(values, weights=weights))
    if statistic == "mean":
        return mean
    if statistic == "std":
        return float(np.sqrt(np.average((values - mean) ** 2, weights=weights)))
    share = 0.5 if statistic == "median" else float(statistic[1:]) / 100.0
    order = np.argsort(values)
    reached = np.cumsum(weights[order]) / weights.sum()
    return float(np.interp(share, reached, values[order]))
