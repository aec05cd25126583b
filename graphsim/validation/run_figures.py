"""Figures of simulated runs, by their names in tables of serving."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from typing import Any

import numpy as np

from graphsim.serving.run_log import FINISHED, REFUSED, STATUSES, RunLog, StepRun
from graphsim.traffic.table import RequestTable
from graphsim.validation.figures import figure, is_figure

Floats = np.ndarray[Any, np.dtype[np.float64]]


class Replayed:
    """A simulated run: its requests, their log, and its steps and gaps between tokens as columns.

    cutoff_s: time at which the client stops; the whole time up to it counts as the duration
    """

    def __init__(self, table: RequestTable, log: RunLog, kv_blocks: float, cutoff_s: float = inf) -> None:
        self.table, self.log, self.kv_blocks, self.cutoff_s = table, log, kv_blocks, cutoff_s
        self.steps = np.array(log.runs, dtype=float).reshape(-1, len(StepRun.COLUMNS))
        self.gaps = np.array(log.gaps, dtype=float).reshape(-1, 2)
        log.runs, log.gaps = [], []  # many times as large


class Outcome:
    """The answered requests of a run, or of a part of it, as counted by its client.

    duration_s: seconds from the first request to the last answer, or to the cut-off of the run
    whole: whether it is the whole run; gaps and steps are known only for the whole
    sending_s: seconds from the first request to the last one
    """

    def __init__(self, run: Replayed, of: tuple[int, int] | None = None) -> None:
        table, log = run.table, run.log
        start, stop = of or (0, len(table))
        here = slice(start, stop)
        status = log.status[here]
        done = status == STATUSES.index(FINISHED)
        self.run, self.whole = run, stop - start == len(table)
        self.sent = int(np.isfinite(log.sent_s[here]).sum())
        self.refused = int((status == STATUSES.index(REFUSED)).sum())
        self.prompts, self.answers = table.input_tokens[here], table.output_tokens[here]
        self.sent_s, self.first_s, self.finished_s = (
            times[here][done] for times in (log.sent_s, log.first_token_s, log.finished_s)
        )
        self.input_tokens, self.output_tokens = self.prompts[done], self.answers[done]
        self.gap_s, self.gap_tokens = run.gaps[:, 0], run.gaps[:, 1]
        self.preemptions = int(log.preemptions[here].sum())
        first = float(np.nanmin(log.sent_s[here])) if self.sent else 0.0
        self.sending_s = float(np.nanmax(log.sent_s[here])) - first if self.sent else 0.0
        last = float(self.finished_s.max()) if done.any() else log.end_s
        self.duration_s = run.cutoff_s if run.cutoff_s < inf else max(last - first, 1e-9)

    @property
    def ttft_s(self) -> Floats:
        """Time to first token of each answered request."""
        return np.asarray(self.first_s - self.sent_s)

    @property
    def e2e_s(self) -> Floats:
        """Time to the last token of each answered request."""
        return np.asarray(self.finished_s - self.sent_s)

    @property
    def tpot_s(self) -> Floats:
        """Mean time per token after the first, of each answered request that has several."""
        several = self.output_tokens > 1
        spent = (self.finished_s - self.first_s)[several]
        return np.asarray(spent / (self.output_tokens[several] - 1.0))


@dataclass(frozen=True, slots=True)
class _Steps:
    """Columns of runs of equal steps, and the seconds over which means are taken."""

    seconds: Floats
    running: Floats
    waiting: Floats
    kv_blocks: Floats
    span_s: float

    def mean(self, values: Floats) -> float:
        """Mean over time, with 0 outside of steps."""
        return float((values * self.seconds).sum() / self.span_s)


def _steps(found: Outcome) -> _Steps:
    rows = found.run.steps if len(found.run.steps) else np.zeros((1, len(StepRun.COLUMNS)))
    span = max(found.run.log.end_s, found.duration_s)
    return _Steps(rows[:, 1], rows[:, 3] + rows[:, 4], rows[:, 8], rows[:, 7], span)


def _of_steps(read: Callable[[_Steps], float]) -> Callable[[Outcome], float]:
    return lambda found: read(_steps(found))


_COUNTS: dict[str, Callable[[Outcome], float]] = {
    "completed": lambda found: float(len(found.sent_s)),
    "sent": lambda found: float(found.sent),
    "failed": lambda found: float(found.sent - len(found.sent_s)),
    "duration": lambda found: found.duration_s,
    "total_time": lambda found: found.duration_s,
    "total_input_tokens": lambda found: float(found.input_tokens.sum()),
    "total_output_tokens": lambda found: float(found.output_tokens.sum()),
    "input_throughput": lambda found: float(found.input_tokens.sum()) / found.duration_s,
    "preemptions": lambda found: float(found.preemptions),
    "mean_running": _of_steps(lambda steps: steps.mean(steps.running)),
    "max_running": _of_steps(lambda steps: float(steps.running.max())),
    "mean_waiting": _of_steps(lambda steps: steps.mean(steps.waiting)),
    "max_waiting": _of_steps(lambda steps: float(steps.waiting.max())),
}  # fmt: skip
_KV = {"mean_kv_usage": lambda steps: steps.mean(steps.kv_blocks), "max_kv_usage": lambda steps: steps.kv_blocks.max()}


def is_run_figure(name: str) -> bool:
    """Whether a simulated run gives a figure of this name."""
    return name in _COUNTS or name in _KV or is_figure(name)


def run_figure(found: Outcome, name: str, devices: float = 1.0) -> float:
    """A figure by its name, in the unit that the name implies; nan if no request has it."""
    if name in _COUNTS:
        return _COUNTS[name](found)
    if name in _KV:
        return float(_KV[name](_steps(found))) / found.run.kv_blocks
    if not len(found.sent_s):
        return float("nan")
    return figure(found, name, devices)
