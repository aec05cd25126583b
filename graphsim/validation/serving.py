"""Serving over time against the estimate: `graphsim validate serving RUNS.csv [METRICS.csv]`.

What a closed loop of one server gives is predicted: InferenceX's configurations and ML.ENERGY's saturated servers. All
else needs arrivals over time, adapters that come and go, or several servers: its figures are rows that say so.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from graphsim.calibration.power_rows import PROMPT_TOKENS
from graphsim.errors import ConfigError, GraphsimError
from graphsim.files.measured import Row, number, read_facts, whole
from graphsim.validation.energy import METRICS as ENERGY
from graphsim.validation.energy import energy_figures
from graphsim.validation.judged import judged_line, medians
from graphsim.validation.served import lines_of
from graphsim.validation.served_rows import Pool, ServedRow, is_served, rows_of

if TYPE_CHECKING:
    import pandas as pd

NOT_SIMULATED = "not simulated"

MEASURED = re.compile(
    r"(?:mean|median|std|p\d+(?:\.\d+)?)_.*_ms|(?:ttft|tpot)_ms|measured_\w+_s|\w*throughput|duration|completed"
    r"|request_goodput|output_tok_s|energy_per_token_j|avg_power_w|running|waiting|kv_cache_pct|\w*tput_per_gpu"
)
"""Columns that hold a measured figure, in a table with a column for each."""

SPREAD = 0.25
"""The shortest answer over the longest one, where only the mean is told: assumed."""


def validate_serving(paths: list[str] | tuple[str, ...]) -> pd.DataFrame:
    """A row for each measured figure of tables of serving: id, metric, measured, predicted, error, problem.

    paths: tables; behind one of runs, the one of their metrics, or none where it lies beside it as `…_metrics.csv`
    Raises ConfigError for a file that cannot be read or holds no figures.
    """
    import pandas as pd

    frames = {path: read_facts(path, "measured serving") for path in paths}
    lines: list[dict[str, Any]] = []
    for path, frame in frames.items():
        if not _figures(frame) and "metric" not in frame.columns:
            metrics = [other for other in frames.values() if {"id", "metric", "value"} <= set(other.columns)]
            lines += _of_runs(path, frame, metrics)
        elif "metric" not in frame.columns or len(frames) == 1:
            lines += _of_table(frame, path)
    return pd.DataFrame(lines)


def _figures(frame: pd.DataFrame) -> list[str]:
    return [str(name) for name in frame.columns if MEASURED.fullmatch(str(name))]


def _of_runs(path: str, runs: pd.DataFrame, metrics: list[pd.DataFrame]) -> Iterator[dict[str, Any]]:
    """The figures of runs that stand in a table of their own."""
    own = Path(path)
    beside = own.with_name(own.name.replace("_runs", "_metrics"))
    if not metrics and beside != own and beside.is_file():
        metrics = [read_facts(beside, "metrics of runs", ("id", "metric", "value"))]
    if not metrics or "id" not in runs.columns:
        raise ConfigError(f"{path}: holds no measured figures; give the file of its metrics behind it")
    known = set(runs["id"])
    for frame in metrics:
        for row in frame.to_dict("records"):
            problem = NOT_SIMULATED if row["id"] in known else f"{path}: holds no run of this id"
            yield judged_line(row["id"], str(row["metric"]), row["value"], np.nan, problem)


def _of_table(frame: pd.DataFrame, path: str) -> Iterator[dict[str, Any]]:
    """The figures of a table that has them itself: a column for each, or one of names and one of values."""
    if is_served(set(frame.columns)):
        for served in rows_of(frame, path):
            yield from lines_of(served)
        return
    value = next((name for name in ("value", "measured") if name in frame.columns), "")
    names = _figures(frame)
    if not names and not ("metric" in frame.columns and value):
        raise ConfigError(f"{path}: holds no measured figures of serving")
    for place, row in enumerate(frame.to_dict("records"), 1):
        name = row.get("id", place)
        if "metric" in row:
            yield judged_line(name, str(row["metric"]), row[value], np.nan, NOT_SIMULATED)
        elif "energy_per_token_j" in row:
            yield from _saturated(row)
        else:
            for metric in names:
                if row[metric] == row[metric]:
                    yield judged_line(name, metric, row[metric], np.nan, NOT_SIMULATED)


def _saturated(row: Row) -> Iterator[dict[str, Any]]:
    """A server that always runs as many sequences as it has places for, and samples from a cut distribution.

    Power and energy are those of its measured time per token (`graphsim.validation.energy`), all times the loop's.
    """
    served = _loop(row)
    timed = {line["metric"]: line for line in lines_of(served)}
    for metric in _figures_of(row):
        if metric in timed:
            yield timed[metric]
        elif metric in ENERGY:
            yield _energy(row, metric)
        else:
            yield judged_line(row["id"], metric, row[metric], np.nan, NOT_SIMULATED)


def _energy(row: Row, metric: str) -> dict[str, Any]:
    try:
        return judged_line(row["id"], metric, row[metric], energy_figures(row)[metric])
    except GraphsimError as error:
        return judged_line(row["id"], metric, row[metric], np.nan, str(error))


def _figures_of(row: Row) -> list[str]:
    return [str(name) for name in row if MEASURED.fullmatch(str(name)) and row[name] == row[name]]


def _loop(row: Row) -> ServedRow:
    """As many clients as ran in the mean."""
    prompt = PROMPT_TOKENS.get(str(row["task"]), PROMPT_TOKENS["lm-arena-chat"])
    devices, answer = whole(row, "gpus"), number(row, "avg_output_len")
    clients = max(1, round(number(row, "avg_batch_size")))
    version = re.search(r"\d+\.\d+", str(row["framework"]))
    return ServedRow(
        id=str(row["id"]), model=str(row["model"]), gpu=str(row["hardware"]), engine="vllm",
        version=version[0] if version else "", precision=str(row["precision"]),
        pool=Pool(tp=devices, ep=devices if whole(row, "ep") > 1 else 1), clients=clients, samples=True,
        input_tokens=2.0 * prompt / (1.0 + SPREAD), output_tokens=2.0 * answer / (1.0 + SPREAD), range_ratio=SPREAD,
        per_client=max(2, whole(row, "requests") // clients), judged="saturated",
        measured={name: number(row, name) for name in _figures_of(row) if name.endswith(("_itl_ms", "output_tok_s"))},
    )  # fmt: skip


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Median size of the error and median error by metric, of what is simulated."""
    return medians(table[table["error"].notna()], ["metric"])
