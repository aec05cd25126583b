"""The search of a fit: damped least squares, a wider search, and small steps at the end."""

from __future__ import annotations

import numpy as np

from graphsim.serving.adjusted import CONSTANTS, outer
from graphsim.serving.fit_problem import Problem
from graphsim.traffic.table import Floats

AFAR = (2.0, 4.0, 8.0, 16.0)
"""Distances beyond the fitted request_s that are tried, in its trial steps of 4 ms."""

POLISH = (1.0, 0.5, 0.25)
"""Step sizes of the final search around a fit's result, in trial steps of each constant."""


def least_squares(problem: Problem, rounds: int) -> tuple[Floats, dict[str, float]]:
    """The best point, and each constant's uncertainty from the fit's own residuals."""
    at, off, slopes = _descended(problem, problem.at, problem.residuals(problem.at), rounds)
    afar, away = _from_afar(problem, at, off)
    if away @ away < off @ off:
        at, off, slopes = _descended(problem, afar, away, rounds)
    at, off = _polished(problem, at, off)
    square = slopes.T @ slopes
    variance = off @ off / max(len(problem.targets) - len(at), 1)
    spread = np.sqrt(np.maximum(np.diag(np.linalg.pinv(square)) * variance, 0.0))
    return at, {name: _in_units(name, at[place], spread[place]) for place, name in enumerate(problem.names)}


def _descended(problem: Problem, at: Floats, off: Floats, rounds: int) -> tuple[Floats, Floats, Floats]:
    """The end point of damped least squares, its residuals, and the slopes."""
    damping, slopes = 1e-2, np.zeros((len(off), len(at)))
    for _ in range(rounds):
        slopes = _slopes(problem, at, off)
        square = slopes.T @ slopes
        improved = False
        for _ in range(4):
            move = np.linalg.solve(square + damping * np.diag(np.diag(square) + 1e-12), -slopes.T @ off)
            trial = problem.allowed(at + move)
            new = problem.residuals(trial)
            if new @ new < off @ off:
                improved = bool(off @ off - new @ new > 1e-4 * (off @ off) + 1e-10)
                at, off, damping = trial, new, damping / 5
                break
            damping *= 8
        if not improved:
            break
    return at, off, slopes


def _from_afar(problem: Problem, at: Floats, off: Floats) -> tuple[Floats, Floats]:
    """A better point at a larger request_s, which has little effect while a request waits for the end of a step
    anyway.
    """
    if "request_s" not in problem.names or problem.is_good(off):
        return at, off
    place, best = problem.names.index("request_s"), (at, off)
    for far in AFAR:
        trial = at.copy()
        trial[place] += far
        trial = problem.allowed(trial)
        new = problem.residuals(trial)
        if new @ new < best[1] @ best[1]:
            best = trial, new
    return best


def _polished(problem: Problem, at: Floats, off: Floats) -> tuple[Floats, Floats]:
    """A point as good or better, by trying each constant a little higher and lower.

    Requests wait for steps to end, so a figure may be a step function, for which slopes are useless.
    """
    for size in POLISH:
        if problem.is_good(off):
            break
        for place in range(len(at)):
            for sign in (1.0, -1.0):
                trial = at.copy()
                trial[place] += sign * size
                trial = problem.allowed(trial)
                new = problem.residuals(trial)
                if new @ new < off @ off:
                    at, off = trial, new
                    break
    return at, off


def _slopes(problem: Problem, at: Floats, off: Floats) -> Floats:
    columns = []
    for place in range(len(at)):
        moved = at.copy()
        moved[place] += 1.0
        if outer(problem.names[place], moved[place]) == outer(problem.names[place], at[place]):  # at its upper bound
            moved[place] -= 2.0
        columns.append((problem.residuals(moved) - off) / (moved[place] - at[place]))
    return np.stack(columns, axis=1)


def _in_units(name: str, at: float, spread: float) -> float:
    """A spread in trial steps as one of the constant."""
    known = CONSTANTS[name]
    return outer(name, at) * spread * known.step if known.factor else spread * known.step
