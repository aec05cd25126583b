"""Comparison of a simulated and a measured run: figure by figure, and their differences in words."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from graphsim.errors import ConfigError
from graphsim.serving.bench_files import FIGURES, BenchRun, read_bench
from graphsim.serving.parting import parting_sentences
from graphsim.serving.run_pair import Requests, RunPair
from graphsim.units import short

if TYPE_CHECKING:
    import pandas as pd


class Summarised(Protocol):
    """A simulated run: anything with the figures of `vllm bench serve`'s result file."""

    def summary(self) -> Mapping[str, Any]:
        """Figures by their names."""


Predicted = Summarised | Mapping[str, Any]
Measured = str | Path | BenchRun


def compare_measured(predicted: Predicted, measured: Measured, run: int | None = None) -> pd.DataFrame:
    """A row for each figure that was measured: metric, measured, predicted, error.

    predicted: a simulated run or its summary
    measured: a benchmark client's result file (see `read_bench`)
    run: which one of a file with several, counted from 1; the last by default
    Latencies are in ms, throughputs per second; error = predicted / measured - 1, nan where one of them is missing or 0
    was measured. Raises ConfigError where the file cannot be read or nothing was predicted.
    """
    import pandas as pd

    figures, bench = figures_of_run(predicted), bench_of(measured, run)
    rows = []
    for name in FIGURES:
        if name in bench.figures:
            there, here = bench.figures[name], figures.get(name, float("nan"))
            error = here / there - 1.0 if there != 0.0 else float("nan")
            rows.append({"metric": name, "measured": there, "predicted": here, "error": error})
    return pd.DataFrame(rows, columns=["metric", "measured", "predicted", "error"])


def where_they_part(predicted: Predicted, measured: Measured, run: int | None = None) -> tuple[str, ...]:
    """Sentences that say in what a simulated run differs from the measured one, and what such a difference comes from.

    Arguments and errors as in `compare_measured`.
    """
    figures, bench = figures_of_run(predicted), bench_of(measured, run)
    pair = RunPair(
        measured=bench.figures, predicted=figures, request_rate=offered_rate(bench), there=_answered(bench),
        here=_simulated(predicted),
    )  # fmt: skip
    return (*bench.notes, *parting_sentences(pair))


def bench_of(measured: Measured, run: int | None = None) -> BenchRun:
    """A measured run, read if it is a path."""
    return measured if isinstance(measured, BenchRun) else read_bench(measured, run)


def figures_of_run(predicted: Predicted) -> dict[str, float]:
    """The numeric figures of a simulated run. Raises ConfigError if there are none."""
    found = predicted if isinstance(predicted, Mapping) else predicted.summary()
    figures = {
        str(name): float(value)
        for name, value in found.items()
        if isinstance(value, int | float | np.number) and not isinstance(value, bool)
    }
    if not any(name in figures for name in FIGURES):
        raise ConfigError(f"predicted = {short(found)} holds no figure to compare; expected names such as mean_ttft_ms")
    return figures


def offered_rate(bench: BenchRun) -> float:
    """Requests per second of an open loop, as stated by the client, else from its times; inf for a closed loop."""
    if bench.max_concurrency is not None or math.isfinite(bench.request_rate) or bench.answered is None:
        return math.inf if bench.max_concurrency is not None else bench.request_rate
    start_s = bench.answered.start_s[np.isfinite(bench.answered.start_s)]
    span = float(np.ptp(start_s)) if len(start_s) > 1 else 0.0
    return len(start_s) / span if span > 0 else math.inf


def _answered(bench: BenchRun) -> Requests | None:
    own = bench.answered
    if own is None:
        return None
    return Requests(start_s=own.start_s, input_tokens=own.input_tokens, ttft_s=own.ttft_s, e2e_s=own.e2e_s)


def _simulated(predicted: Predicted) -> Requests | None:
    """A simulated run's requests, where it keeps a table of them."""
    table = getattr(predicted, "requests", None)
    names = ("arrival_s", "input_tokens", "ttft_s", "e2e_s")
    if table is None or any(name not in table for name in names):
        return None
    start_s, input_tokens, ttft_s, e2e_s = (np.asarray(table[name], dtype=float) for name in names)
    return Requests(start_s=start_s, input_tokens=input_tokens, ttft_s=ttft_s, e2e_s=e2e_s)
