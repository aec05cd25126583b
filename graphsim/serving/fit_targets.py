"""The figures of a measured run that a fit uses, and the constants that such runs can determine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from graphsim.serving.bench_files import BenchRun
from graphsim.serving.run_pair import RunPair, has_queue

KEEPS_UP = 0.95
"""Share of the offered requests from which a server's throughput is set by the arrivals."""

CHECKS = (
    "mean_ttft_ms",
    "median_ttft_ms",
    "p99_ttft_ms",
    "p99_tpot_ms",
    "mean_itl_ms",
    "mean_e2el_ms",
    "median_e2el_ms",
    "p99_e2el_ms",
    "output_throughput",
)
"""Figures that a report shows in addition to the fitted ones."""


@dataclass(frozen=True, slots=True)
class Target:
    """A figure of a run to be met, and how much it counts."""

    run: int
    metric: str
    measured: float
    weight: float


def targets_of(place: int, figures: Mapping[str, float], request_rate: float) -> list[Target]:
    """The figures of a run, weighted by their information on the server; 0 for those without any.

    TTFT counts little where requests queued and not at all where the server was overloaded; throughput counts if the
    server limited it.
    """
    alone = RunPair(measured=figures, predicted=figures, request_rate=request_rate)
    kept_up = alone.kept_up(figures)
    weights = {
        "median_tpot_ms": 1.0, "mean_tpot_ms": 1.0, "median_itl_ms": 0.0 if alone.is_lumpy else 1.0,
        "median_ttft_ms": 0.0 if kept_up < KEEPS_UP else 0.2 if has_queue(figures) else 1.0,
        "mean_ttft_ms": 0.0 if kept_up < KEEPS_UP else 0.1 if has_queue(figures) else 0.5,
        "output_throughput": 0.0 if kept_up >= KEEPS_UP else 1.0,
    }  # fmt: skip
    return [
        Target(place, name, figures[name], weight)
        for name, weight in (dict.fromkeys(CHECKS, 0.0) | weights).items()
        if figures.get(name, 0.0) > 0
    ]


def told_apart(benches: Sequence[BenchRun]) -> list[str]:
    """Constants that these runs can determine: a second one of a kind needs runs that differ in its quantity."""
    calm = [bench.figures for bench in benches if not has_queue(bench.figures)]
    prompts = [
        figures["total_input_tokens"] / figures["completed"]
        for figures in calm
        if figures.get("completed", 0.0) > 0 and figures.get("total_input_tokens", 0.0) > 0
    ]
    steps = [bench.figures["mean_tpot_ms"] for bench in benches if bench.figures.get("mean_tpot_ms", 0.0) > 0]
    found = ["request_s", "step_factor"]
    found += ["token_s"] if prompts and max(prompts) > 2.0 * min(prompts) else []
    found += ["step_s"] if steps and max(steps) > 1.5 * min(steps) else []
    return found
