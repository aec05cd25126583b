"""Measured figures of runs compared with simulated ones, one line each; parts of one run share one simulation."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any

import numpy as np

from graphsim.errors import GraphsimError
from graphsim.validation.judged import judged_line
from graphsim.validation.measured_run import MeasuredRun
from graphsim.validation.run_figures import Outcome, is_run_figure, run_figure
from graphsim.validation.simulated import simulated

NOT_SIMULATED = "not simulated"

Figure = Callable[[Outcome, MeasuredRun, str, float], tuple[float, str]]
Progress = Callable[[str], None]


def named_figure(found: Outcome, run: MeasuredRun, name: str, measured: float) -> tuple[float, str]:
    """The prediction of a figure by its name in the file, and the reason if there is none."""
    return (run_figure(found, name), "") if is_run_figure(name) else (np.nan, NOT_SIMULATED)


def run_lines(
    runs: Sequence[MeasuredRun], figure: Figure = named_figure, progress: Progress | None = None
) -> Iterator[dict[str, Any]]:
    """A line for each measured figure of some runs: id, metric, measured, predicted, error, problem and more.

    figure: function that predicts a figure
    progress: called with a text for each simulated run
    """
    many = len({run.run for run in runs if run.served})
    begun = set[Hashable]()
    for run in runs:
        if run.served and run.run not in begun:
            begun.add(run.run)
            if progress:
                progress(f"run {len(begun)} of {many}: {run.id}")
        yield from _lines(run, figure)


def _lines(run: MeasuredRun, figure: Figure) -> Iterator[dict[str, Any]]:
    found, problem = None, run.problem
    if run.served is not None and not problem:
        try:
            found = simulated(run)
        except GraphsimError as error:
            problem = str(error)
    for name, measured in run.measured:
        predicted, reason = (np.nan, problem) if found is None else figure(found, run, name, measured)
        if found is not None and not reason and not np.isfinite(predicted):
            reason = "no request is answered" if not len(found.sent_s) else NOT_SIMULATED
        more = {"judged": run.judged, "half": run.half, **run.about}
        yield judged_line(run.id, name, measured, predicted, reason) | more
    if not run.measured:
        yield judged_line(run.id, "", np.nan, np.nan, "no figures of this run are given")
