"""Fitting the few constants of a host from a user's own measured runs.

Damped least squares (Levenberg-Marquardt) on logarithms of predicted / measured, with finite differences: a run is
simulated again with each constant changed a little. Large misses count less than quadratically (Huber loss), and a
weak pull towards the starting values keeps constants that the runs do not determine.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from graphsim.errors import ConfigError
from graphsim.serving.adjusted import checked_constants, neutral
from graphsim.serving.fit_problem import Problem, Simulate
from graphsim.serving.fit_report import HostFit
from graphsim.serving.fit_search import least_squares
from graphsim.serving.fit_targets import Target, targets_of, told_apart
from graphsim.serving.measured import Measured, bench_of, offered_rate

if TYPE_CHECKING:
    import pandas as pd

ROUNDS = 8


def fit_host(
    runs: Sequence[tuple[Measured, Simulate]], constants: Sequence[str] | None = None,
    start: Mapping[str, float] | None = None, rounds: int = ROUNDS,
) -> HostFit:  # fmt: skip
    """The constants with which simulated runs are closest to measured ones.

    runs: of each, a client's result file (or what `read_bench` made of it), and a function that simulates the same
        traffic under given constants and returns figures
    constants: names of `CONSTANTS`; by default those that the runs can tell apart: request_s and step_factor, token_s
        too if prompts differ in length between runs without a queue, step_s if their steps differ
    start: values to begin with, such as the engine profile's
    rounds: at most, of one simulation of each run for each
        constant and a few more
    Raises ConfigError for unknown constants and where nothing can be compared.
    """
    benches = [bench_of(measured) for measured, _ in runs]
    if not benches:
        raise ConfigError("runs = [] is not allowed; expected at least one measured run")
    targets = [
        target
        for place, bench in enumerate(benches)
        for target in targets_of(place, bench.figures, offered_rate(bench))
    ]
    names = list(dict.fromkeys(told_apart(benches) if constants is None else constants))
    fixed = checked_constants({name: neutral(name) for name in names} | dict(start or {}))
    problem = Problem([simulate for _, simulate in runs], targets, names, fixed)
    first = problem.figures(problem.at)
    shown = [target for target in targets if _is_known(first[target.run], target.metric)]
    problem.targets = [target for target in shown if target.weight]
    if not problem.targets:
        raise ConfigError(
            "the simulated runs have no figure in common with the measured ones; expected mean_tpot_ms or others"
        )
    best, spread = least_squares(problem, rounds)
    return HostFit(
        constants=problem.values(best), start={name: fixed[name] for name in names}, uncertainty=spread,
        table=_table(shown, first, problem.figures(best)), simulations=problem.simulations * len(runs),
    )  # fmt: skip


def _is_known(figures: Mapping[str, Any], metric: str) -> bool:
    value = figures.get(metric)
    return isinstance(value, int | float | np.number) and 0 < float(value) < math.inf


def _table(shown: list[Target], before: list[Mapping[str, Any]], after: list[Mapping[str, Any]]) -> pd.DataFrame:
    import pandas as pd

    rows = []
    for target in sorted(shown, key=lambda target: (target.run, not target.weight)):
        first, last = (float(figures[target.run].get(target.metric, math.nan)) for figures in (before, after))
        rows.append({
            "run": target.run + 1, "metric": target.metric, "measured": target.measured, "before": first, "after": last,
            "error_before": first / target.measured - 1.0, "error_after": last / target.measured - 1.0,
            "fitted": target.weight > 0,
        })  # fmt: skip
    return pd.DataFrame(rows)
