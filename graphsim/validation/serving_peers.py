"""Predictions of other simulators for measured runs, next to the measurement and graphsim's own: one line each.

Runs are found by their ids in the adjacent tables of runs (`…_runs.csv`).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from graphsim.files.measured import read_facts
from graphsim.validation.judged import judged_line
from graphsim.validation.measured_run import MeasuredRun, sampled
from graphsim.validation.run_lines import Figure, Progress, named_figure, run_lines
from graphsim.validation.serving_tables import read_runs

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = {"id", "simulator", "metric", "predicted", "measured"}
UNKNOWN = "no table of runs beside it holds this id"


def peer_lines(frame: pd.DataFrame, path: str, most: int | None, progress: Progress | None) -> Iterator[dict[str, Any]]:
    """id, metric, measured, predicted, error and problem, followed by simulator, peer_predicted and peer_error."""
    known, figures = _known(frame, path)
    names = [str(name) for name in frame["id"].unique()]
    runs = [known.get(name, MeasuredRun(id=name, measured=(), problem=UNKNOWN)) for name in names]
    predicted: dict[tuple[str, str], dict[str, Any]] = {}
    chosen = sampled(runs, most)
    for at, run in enumerate(chosen, 1):
        if progress and not run.problem:
            progress(f"run {at} of {len(chosen)}: {run.id}")
        for line in run_lines([run], figures.get(run.id, named_figure)):
            predicted.setdefault((run.id, str(line["metric"])), line)
    taken = {run.id: run for run in chosen}
    for row in frame.to_dict("records"):
        name, metric = str(row["id"]), str(row["metric"])
        if name not in taken:
            continue
        found = predicted.get((name, metric), {"predicted": np.nan, "problem": taken[name].problem})
        line = judged_line(name, metric, row["measured"], found["predicted"], found["problem"])
        peer = judged_line(name, metric, row["measured"], float(row["predicted"]))
        yield line | {
            "simulator": str(row["simulator"]), "peer_predicted": peer["predicted"], "peer_error": peer["error"],
            "judged": taken[name].judged,
        }  # fmt: skip


def _known(frame: pd.DataFrame, path: str) -> tuple[dict[str, MeasuredRun], dict[str, Figure]]:
    """Runs by id, with the figures that the peers were compared with, and the function that predicts these."""
    measured: dict[str, dict[str, float]] = {}
    for row in frame.to_dict("records"):
        measured.setdefault(str(row["id"]), {}).setdefault(str(row["metric"]), float(row["measured"]))
    told = {name: tuple(found.items()) for name, found in measured.items()}
    runs: dict[str, MeasuredRun] = {}
    figures: dict[str, Figure] = {}
    for other in sorted(Path(path).parent.glob("*_runs.csv")):
        table = read_facts(other, "measured runs")
        if "id" not in table.columns or not set(table["id"].astype(str)) & told.keys():
            continue
        found, figure = read_runs(table, told, str(other))
        runs |= {run.id: run for run in found if run.id in told}
        figures |= {run.id: figure for run in found}
    return runs, figures
