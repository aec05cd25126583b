"""A run over time: contents of steps and generated tokens, as means and peaks of any spans of time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from graphsim.serving.rows import Rows
from graphsim.serving.run_log import StepRun

Floats = np.ndarray[Any, np.dtype[np.float64]]
Flags = np.ndarray[Any, np.dtype[np.bool_]]


def columns_of(runs: Rows | Sequence[tuple[float, ...]]) -> dict[str, Floats]:
    """The columns of a log's runs of steps by name, in time."""
    rows = np.asarray(runs, dtype=float).reshape(-1, len(StepRun.COLUMNS))
    order = np.argsort(rows[:, 0], kind="stable")
    return dict(zip(StepRun.COLUMNS, np.ascontiguousarray(rows[order].T), strict=True))


@dataclass(frozen=True, kw_only=True, eq=False)
class OverTime:
    """Runs of steps over time; between them the engine is idle and every quantity is 0.

    columns: of StepRun, in time
    """

    columns: dict[str, Floats]

    @cached_property
    def _edges(self) -> Floats:
        start = self.columns["start_s"]
        return np.column_stack([start, start + self.columns["seconds"]]).ravel()

    def integral(self, values: Floats, at: Floats) -> Floats:
        """Integral over time of a quantity of each run, from the start to each of these seconds."""
        if not len(values):
            return np.zeros(len(at))
        areas = np.zeros(2 * len(values))
        areas[1::2] = values * self.columns["seconds"]
        return np.interp(at, self._edges, np.cumsum(areas))

    def means(self, values: Floats, edges: Floats) -> Floats:
        """Mean of a quantity between each two edges, idle time counted as 0."""
        return np.asarray(np.diff(self.integral(values, edges)) / np.diff(edges))

    def mean(self, values: Floats, start_s: float, end_s: float) -> float:
        """Mean of a quantity over a span; 0 of an empty one."""
        return float(self.means(values, np.array([start_s, end_s]))[0]) if end_s > start_s else 0.0

    def peaks(self, values: Floats, edges: Floats) -> Floats:
        """Largest value between each two edges."""
        found = np.zeros(len(edges) - 1)
        start = self.columns["start_s"]
        if not len(values):
            return found
        first = np.clip(np.searchsorted(edges, start, side="right") - 1, 0, len(found) - 1)
        last = np.clip(np.searchsorted(edges, start + self.columns["seconds"]) - 1, first, len(found) - 1)
        np.maximum.at(found, first, values)
        np.maximum.at(found, last, values)
        for i in np.flatnonzero(last - first > 1):
            found[first[i] + 1 : last[i]] = np.maximum(found[first[i] + 1 : last[i]], values[i])
        return found


def tokens_until(at: Floats, first_s: Floats, finished_s: Floats, output_tokens: Floats) -> Floats:
    """Tokens that had come by each of these seconds; those behind a request's first one spread evenly to its last."""
    rate = np.where(finished_s > first_s, (output_tokens - 1.0) / np.maximum(finished_s - first_s, 1e-12), 0.0)
    at_once = np.where(finished_s > first_s, 1.0, output_tokens)
    order = np.argsort(first_s)
    firsts = np.concatenate([[0.0], np.cumsum(at_once[order])])[np.searchsorted(first_s[order], at)]
    return np.asarray(firsts + _ramps(at, first_s, rate) - _ramps(at, finished_s, rate))


def _ramps(at: Floats, start_s: Floats, rate: Floats) -> Floats:
    """Sum of lines that rise from 0 at their start."""
    order = np.argsort(start_s)
    slopes = np.concatenate([[0.0], np.cumsum(rate[order])])
    offsets = np.concatenate([[0.0], np.cumsum((rate * start_s)[order])])
    begun = np.searchsorted(start_s[order], at)
    return np.asarray(at * slopes[begun] - offsets[begun])


def bins(end_s: float, most: int = 300) -> Floats:
    """Edges of spans of a round length that cover a run."""
    if not end_s > 0:
        return np.array([0.0, 1.0])
    least = end_s / most
    scale = 10.0 ** np.floor(np.log10(least))
    width = scale * next(step for step in (1.0, 2.0, 5.0, 10.0) if step * scale >= least * (1 - 1e-9))
    return np.asarray(width * np.arange(int(np.ceil(end_s / width - 1e-9)) + 1))
