"""Tables of runs that are simulated over time, identified by their columns, with the reader and predictor of each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from graphsim.errors import ConfigError
from graphsim.files.measured import Row, numbers_of
from graphsim.validation import (
    serving_blis,
    serving_bsc,
    serving_llmservingsim,
    serving_mlperf,
    serving_open_loop,
    serving_pd_ratio,
    serving_routing,
    serving_slora,
)
from graphsim.validation.blis_figures import blis_figure
from graphsim.validation.judged import judged_line
from graphsim.validation.measured_run import Measured, MeasuredRun, sampled
from graphsim.validation.run_lines import NOT_SIMULATED, Figure, Progress, named_figure, run_lines
from graphsim.validation.simulated import simulated

if TYPE_CHECKING:
    import pandas as pd

Reader = Callable[[Sequence[Row], Mapping[str, Measured], Path], list[MeasuredRun]]


def each_run(read: Callable[[Row, Measured, Path], MeasuredRun]) -> Reader:
    """A reader of tables whose rows are independent; a row that cannot be parsed states the reason."""

    def reader(rows: Sequence[Row], measured: Mapping[str, Measured], beside: Path) -> list[MeasuredRun]:
        return [_read(read, row, measured.get(str(row["id"]), ()), beside) for row in rows]

    return reader


def _read(
    read: Callable[[Row, Measured, Path], MeasuredRun], row: Row, measured: Measured, beside: Path
) -> MeasuredRun:
    try:
        return read(row, measured, beside)
    except ConfigError as error:
        return MeasuredRun(id=str(row["id"]), measured=measured, problem=str(error))


def _slora(found: Any, run: MeasuredRun, name: str, measured: float) -> tuple[float, str]:
    return serving_slora.slora_figure(found, run, name)


RUNS: tuple[tuple[set[str], Reader, Figure], ...] = (
    (serving_bsc.COLUMNS, each_run(lambda row, told, beside: serving_bsc.bsc_run(row, told)), named_figure),
    (serving_slora.COLUMNS, each_run(lambda row, told, beside: serving_slora.slora_run(row, told)), _slora),
    (serving_llmservingsim.COLUMNS, each_run(serving_llmservingsim.trace_run), named_figure),
    (serving_blis.COLUMNS, lambda rows, told, beside: serving_blis.blis_runs(rows, told), blis_figure),
)
"""Tables of runs whose figures are in a separate table."""


def read_runs(frame: pd.DataFrame, measured: Mapping[str, Measured], path: str) -> tuple[list[MeasuredRun], Figure]:
    """The runs of a table, and the function that predicts their figures; runs of an unknown layout state that."""
    rows = frame.to_dict("records")
    for columns, reader, figure in RUNS:
        if columns <= set(frame.columns):
            return reader(rows, measured, Path(path).parent), figure
    return [
        MeasuredRun(id=str(row["id"]), measured=measured.get(str(row["id"]), ()), problem=NOT_SIMULATED)
        for row in rows
    ], named_figure  # fmt: skip


def measured_of(frame: pd.DataFrame) -> dict[str, Measured]:
    """The figures of each run, by its id, from a table of id, metric and value; values that are not numbers are
    left out.
    """
    values = numbers_of(frame["value"])
    found: dict[str, list[tuple[str, float]]] = {}
    for name, metric, value in zip(frame["id"], frame["metric"], values, strict=True):
        found.setdefault(str(name), []).append((str(metric), float(value)))
    return {name: tuple(figures) for name, figures in found.items()}


def own_lines(
    frame: pd.DataFrame, most: int | None, progress: Progress | None
) -> Iterator[dict[str, Any]] | None:  # fmt: skip
    """The lines of a table that includes its runs' figures; None if its layout has no runs over time."""
    columns = set(frame.columns)
    if columns >= serving_open_loop.SGLANG_COLUMNS:
        read = serving_open_loop.sglang_run
        return run_lines(sampled(_each(frame, lambda row, place: read(row)), most), named_figure, progress)
    if columns >= serving_open_loop.DSTACK_COLUMNS:
        return run_lines(sampled(_each(frame, serving_open_loop.dstack_run), most), named_figure, progress)
    if columns >= serving_routing.COLUMNS:
        return run_lines(sampled(_each(frame, serving_routing.routing_run), most), named_figure, progress)
    if columns >= serving_open_loop.THREADS_COLUMNS:
        return _threads(frame, progress)
    if columns >= serving_mlperf.COLUMNS:
        return serving_mlperf.mlperf_lines(_spread(list(frame.to_dict("records")), most), progress)
    if columns >= serving_pd_ratio.COLUMNS:
        return serving_pd_ratio.pd_ratio_lines(_spread(list(frame.to_dict("records")), most), progress)
    return None


def _spread(rows: Sequence[Row], most: int | None) -> Sequence[Row]:
    """At most `most` rows, evenly spaced."""
    if most is None or most >= len(rows):
        return rows
    return [rows[i] for i in sorted({i * len(rows) // most for i in range(most)})]


def _each(frame: pd.DataFrame, read: Callable[[Row, int], MeasuredRun]) -> list[MeasuredRun]:
    found = []
    for place, row in enumerate(frame.to_dict("records"), 1):
        row.setdefault("id", str(place))
        try:
            found.append(read(row, place))
        except ConfigError as error:
            figures = serving_open_loop.figures_of(row)
            found.append(MeasuredRun(id=str(row["id"]), measured=figures, problem=str(error)))
    return found


def _threads(frame: pd.DataFrame, progress: Progress | None) -> Iterator[dict[str, Any]]:
    """Figures of threads, one per row: a name and a value, which may be text."""
    for row in frame.to_dict("records"):
        try:
            value = float(row["value"])
        except ValueError:
            value = np.nan
        yield from run_lines([serving_open_loop.starved_run(row, ((str(row["metric"]), value),))], named_figure, None)


def series_lines(
    frame: pd.DataFrame, path: str, most: int | None, progress: Progress | None
) -> Iterator[dict[str, Any]]:
    """Lines of an engine's log, second by second: one figure per quantity and line of the log."""
    from graphsim.files.measured import read_facts

    beside = Path(path).with_name(Path(path).name.replace("_timeseries", "_runs"))
    runs: dict[str, MeasuredRun] = {}
    if beside != Path(path) and beside.is_file():
        found, _ = read_runs(read_facts(beside, "measured runs"), {}, path)
        runs = {run.id: run for run in found}
    chosen = {run.id for run in sampled([MeasuredRun(id=str(n), measured=()) for n in frame["id"].unique()], most)}
    for name, part in frame.groupby("id", sort=False):
        if str(name) not in chosen:
            continue
        run = runs.get(str(name)) or MeasuredRun(id=str(name), measured=(), problem="no run of this id is known")
        predicted, problem = _series(run, part, progress)
        for at, row in enumerate(part.to_dict("records")):
            for metric in serving_llmservingsim.SERIES:
                value = predicted[metric][at] if predicted else np.nan
                yield judged_line(name, metric, row[metric], value, problem) | {"t": row["t"]}


def _series(run: MeasuredRun, part: pd.DataFrame, progress: Progress | None) -> tuple[dict[str, Any], str]:
    if run.problem:
        return {}, run.problem
    if progress:
        progress(f"run {run.id}")
    try:
        return serving_llmservingsim.series(simulated(run), run, serving_llmservingsim.seconds_of(part)), ""
    except ConfigError as error:
        return {}, str(error)
