"""Serving over time compared with the estimate: `graphsim validate serving RUNS.csv [METRICS.csv]`.

Open-loop runs, with or without adapters, are simulated over time (`serving_tables.py`), closed-loop benchmarks as in
`graphsim validate served`, and saturated servers as such. Rows of figures that are not simulated, such as those of
several servers, state the reason.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from graphsim.errors import ConfigError
from graphsim.files.measured import read_facts
from graphsim.validation import serving_llmservingsim, serving_peers, serving_saturated
from graphsim.validation.judged import judged_line
from graphsim.validation.measured_run import sampled
from graphsim.validation.run_lines import NOT_SIMULATED, Progress, run_lines
from graphsim.validation.served import lines_of
from graphsim.validation.served_rows import is_served, rows_of
from graphsim.validation.serving_tables import measured_of, own_lines, read_runs, series_lines

if TYPE_CHECKING:
    import pandas as pd

MEASURED = re.compile(
    r"(?:mean|median|std|p\d+(?:\.\d+)?)_.*_ms|(?:ttft|tpot)_ms|measured_\w+_s|\w*throughput|duration|completed"
    r"|request_goodput|output_tok_s|energy_per_token_j|avg_power_w|running|waiting|kv_cache_pct|\w*tput_per_gpu"
)
"""Columns of measured figures, in tables with one column per figure."""

METRICS = {"id", "metric", "value"}
UNKNOWN_RUN = "no table of runs holds this id"


def validate_serving(
    paths: list[str] | tuple[str, ...], rows: int | None = None, progress: Progress | None = None
) -> pd.DataFrame:
    """A row for each measured figure of tables of serving: id, metric, measured, predicted, error, problem and more.

    paths: tables; a table of runs is followed by that of its metrics, unless this is next to it as `…_metrics.csv`
    rows: number of evenly spaced runs of each table to simulate, None for all
    progress: called with a text for each run
    Raises ConfigError for a file that cannot be read or has no figures.
    """
    import pandas as pd

    if rows is not None and rows < 1:
        raise ConfigError(f"rows = {rows} is not allowed; expected a number above 0")
    frames = {path: read_facts(path, "measured serving") for path in paths}
    runs = {path for path, frame in frames.items() if _holds_runs(frame)}
    lines: list[dict[str, Any]] = []
    for path, frame in frames.items():
        if path in runs:
            metrics = [other for other in frames.values() if _holds_metrics(other)]
            lines += _of_runs(path, frame, metrics, rows, progress)
        elif not _holds_metrics(frame):
            lines += _of_table(frame, path, rows, progress)
        elif not runs:
            lines += _of_metrics(path, frame, rows, progress)
    return pd.DataFrame(lines)


def _holds_metrics(frame: pd.DataFrame) -> bool:
    return set(frame.columns) >= METRICS and "source" not in frame.columns


def _holds_runs(frame: pd.DataFrame) -> bool:
    return not _figures(frame) and "metric" not in frame.columns


def _figures(frame: pd.DataFrame) -> list[str]:
    return [str(name) for name in frame.columns if MEASURED.fullmatch(str(name))]


def _of_runs(
    path: str, runs: pd.DataFrame, metrics: list[pd.DataFrame], rows: int | None, progress: Progress | None
) -> Iterator[dict[str, Any]]:
    """The figures of runs whose metrics are in a separate table."""
    own = Path(path)
    beside = own.with_name(own.name.replace("_runs", "_metrics"))
    if not metrics and beside != own and beside.is_file():
        metrics = [read_facts(beside, "metrics of runs", ("id", "metric", "value"))]
    if not metrics or "id" not in runs.columns:
        raise ConfigError(f"{path}: holds no measured figures; give the file of its metrics behind it")
    yield from _joined(path, runs, metrics, rows, progress)


def _of_metrics(path: str, metrics: pd.DataFrame, rows: int | None, progress: Progress | None) -> Iterator[Any]:
    """The figures of a table of metrics that was given without its runs."""
    own = Path(path)
    beside = own.with_name(own.name.replace("_metrics", "_runs"))
    if beside != own and beside.is_file():
        runs = read_facts(beside, "measured runs", ("id",))
        yield from _joined(str(beside), runs, [metrics], rows, progress)
        return
    for row in metrics.to_dict("records"):
        yield judged_line(row["id"], str(row["metric"]), row["value"], np.nan, UNKNOWN_RUN)


def _joined(
    path: str, runs: pd.DataFrame, metrics: list[pd.DataFrame], rows: int | None, progress: Progress | None
) -> Iterator[dict[str, Any]]:
    import pandas as pd

    joined = pd.concat(metrics, ignore_index=True)
    found, figure = read_runs(runs, measured_of(joined), path)
    yield from run_lines(sampled(found, rows), figure, progress)
    known = set(runs["id"].astype(str))
    for row in joined.to_dict("records"):
        if str(row["id"]) not in known:
            yield judged_line(row["id"], str(row["metric"]), row["value"], np.nan, f"{path}: holds no run of this id")


def _of_table(
    frame: pd.DataFrame, path: str, rows: int | None, progress: Progress | None
) -> Iterator[dict[str, Any]]:  # fmt: skip
    """The figures of a table that includes them: one column per figure, or a column of names and one of values."""
    columns = set(frame.columns)
    if columns >= serving_peers.COLUMNS:
        yield from serving_peers.peer_lines(frame, path, rows, progress)
        return
    if columns >= serving_llmservingsim.SERIES_COLUMNS:
        yield from series_lines(frame, path, rows, progress)
        return
    if (lines := own_lines(frame, rows, progress)) is not None:
        yield from lines
        return
    if rows is not None:
        frame = frame.iloc[sorted({i * len(frame) // rows for i in range(min(rows, len(frame)))})]
    if is_served(columns):
        for served in rows_of(frame, path):
            yield from lines_of(served)
        return
    yield from _by_column(frame, path)


def _by_column(frame: pd.DataFrame, path: str) -> Iterator[dict[str, Any]]:
    value = next((name for name in ("value", "measured") if name in frame.columns), "")
    names = _figures(frame)
    if not names and not ("metric" in frame.columns and value):
        raise ConfigError(f"{path}: holds no measured figures of serving")
    for place, row in enumerate(frame.to_dict("records"), 1):
        name = row.get("id", place)
        if "metric" in row:
            yield judged_line(name, str(row["metric"]), row[value], np.nan, NOT_SIMULATED)
        elif serving_saturated.COLUMN in row:
            yield from serving_saturated.saturated_lines(row, names)
        else:
            for metric in names:
                if row[metric] == row[metric]:
                    yield judged_line(name, metric, row[metric], np.nan, NOT_SIMULATED)
