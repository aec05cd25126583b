"""Measured training runs compared with the estimate: `graphsim validate training`.

The layout of a table is recognised by its columns: runs with a `metric` column, single kernels of Liger's benchmark, or
bytes that autograd saves. Every measured value is a row; rows of figures that a step does not have state that.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphsim.errors import ConfigError, GraphsimError
from graphsim.files.measured import Row, read_facts
from graphsim.validation import training_liger, training_saved
from graphsim.validation.judged import judged_line
from graphsim.validation.training_cases import SETTINGS, TrainingCase, case_of, key_of
from graphsim.validation.training_estimates import estimate_case
from graphsim.validation.training_figures import figure, is_simulated, kind_of

if TYPE_CHECKING:
    import pandas as pd

RUNS = ("id", "metric", "value", "model", "framework", "method", "hardware")
"""Columns of a table of runs."""
BESIDE = ("step_time", "tokens_per_s_per_gpu")
"""Metrics whose product, if a run states both, is the number of tokens of a device's step."""


def validate_training(path: str | Path) -> pd.DataFrame:
    """A row for each measured value: id, metric, measured, predicted, error, problem, and what was run.

    error: predicted / measured - 1; nan if nothing was measured or predicted
    quantity: `time`, `memory`, `fits` or `count`
    case: number of the settings, the same for all figures of a run
    Raises ConfigError for a file that cannot be read or has no known layout.
    """
    import pandas as pd

    frame = read_facts(path, "training runs", dtype=str, keep_default_na=False)
    columns = set(frame.columns)
    rows: list[dict[Any, Any]] = frame.to_dict("records")
    if set(training_liger.COLUMNS) <= columns:
        return pd.DataFrame([training_liger.liger_lines(row) for row in rows])
    if set(training_saved.COLUMNS) <= columns:
        return pd.DataFrame([line for row in rows for line in training_saved.saved_lines(row)])
    missing = [name for name in RUNS if name not in columns]
    if missing:
        raise ConfigError(f"{path}: column {missing[0]} is missing; needed are {', '.join(RUNS)}, or those of kernels")
    return pd.DataFrame(_run_lines(rows))


def _run_lines(rows: list[dict[Any, Any]]) -> list[dict[str, Any]]:
    told = counted(rows)
    found = _Estimates()
    return [_line(row, found) for row in told]


def _line(row: Row, found: _Estimates) -> dict[str, Any]:
    metric = str(row["metric"])
    predicted, problem = float("nan"), ""
    if not is_simulated(metric):
        problem = "not simulated"
    else:
        try:
            predicted = figure(row, *found.of(row))
        except GraphsimError as error:
            problem = str(error)
    measured = 1.0 if metric == "did_not_run" else row["value"]
    shown = {name: str(row.get(name, "")) for name in SETTINGS if name != "note"}
    line = judged_line(row["id"], metric, measured, predicted, problem)
    return line | {"quantity": kind_of(metric), "case": found.place(row), **_peer(row, line["measured"])} | shown


PEERS = re.compile(r"(SimuMax) predicts ([\d.]+) ms [^,]*, ([\d.]+) GiB")
"""Predictions of another simulator, as noted in the rows of its own benchmark."""


def _peer(row: Row, measured: float) -> dict[str, Any]:
    """Another simulator's name and its error on the same figure, if the row states one."""
    told = PEERS.search(str(row.get("note", "")))
    if not told:
        return {"peer": "", "peer_error": float("nan")}
    predicted = {"step_time": float(told[2]) / 1e3, "peak_memory_allocated": float(told[3])}.get(str(row["metric"]))
    error = float("nan") if predicted is None else predicted / measured - 1.0
    return {"peer": told[1], "peer_error": error}


class _Estimates:
    """Cases by their settings, each simulated once."""

    def __init__(self) -> None:
        self.known: dict[tuple[str, ...], tuple[TrainingCase, Any] | str] = {}

    def of(self, row: Row) -> tuple[TrainingCase, Any]:
        """The case of a row and its estimate. Raises ConfigError with the reason if there is none."""
        key = key_of(row)
        if key not in self.known:
            try:
                case = case_of(row)
                self.known[key] = case, estimate_case(case)
            except GraphsimError as error:
                self.known[key] = str(error)
        found = self.known[key]
        if isinstance(found, str):
            raise ConfigError(found)
        return found

    def place(self, row: Row) -> int:
        """The number of a row's case; -1 if it was not simulated."""
        return list(self.known).index(key_of(row)) if key_of(row) in self.known else -1


def counted(rows: Iterable[dict[Any, Any]]) -> list[dict[Any, Any]]:
    """The rows, with the tokens of a step added if a run states only its time and its rate."""
    runs: dict[tuple[str, ...], list[dict[Any, Any]]] = {}
    listed = list(rows)
    for row in listed:
        runs.setdefault(key_of(row), []).append(row)
    for run in runs.values():
        values = {str(row["metric"]): row["value"] for row in run}
        rate, step = (_float(values.get(name)) for name in reversed(BESIDE))
        for row in run:
            if rate and step and not row.get("seq_len"):
                row["tokens_of_step"] = rate * step * (_float(row.get("num_devices")) or 1.0)
            if rate:
                row["tokens_beside"] = rate
    return listed


def _float(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        return 0.0


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Median absolute and median error, and the share of rows within BOUNDS, by what was run and what was measured.

    For rows of `did_not_run`, the share is that of rows for which memory is predicted as insufficient.
    """
    import pandas as pd

    parts = [by for by in (("quantity",), *(("quantity", name) for name in GROUPS)) if set(by) <= set(table.columns)]
    known = table[(table["problem"] == "") & table["error"].notna()]
    tables = [_medians(known, by) for by in parts]
    if "peer" in table.columns:
        beside = table[table["peer"] != ""]
        tables.append(_medians(beside[beside["problem"] == ""], ("quantity", "peer"), "beside "))
        tables.append(_medians(beside.assign(error=beside["peer_error"]), ("quantity", "peer")))
    return pd.concat([part for part in tables if not part.empty], ignore_index=True).fillna("")


GROUPS = ("metric", "framework", "method", "hardware", "kernel", "provider")
BOUNDS: Mapping[str, float] = {"time": 0.10, "memory": 0.05, "fits": 0.0, "count": 0.001, "flops": 0.001}
"""Largest error of a row that counts as within bounds."""


def _medians(known: pd.DataFrame, by: tuple[str, ...], prefix: str = "") -> pd.DataFrame:
    import pandas as pd

    lines = []
    for key, group in known[known["error"].notna()].groupby(list(by), sort=True):
        size = group["error"].abs()
        bound = BOUNDS.get(str(key[0]), 0.1)
        whose = prefix + _short(str(key[1])) if len(by) > 1 else "all"
        lines.append({
            "quantity": key[0], "by": by[1] if len(by) > 1 else "", "of": whose,
            "rows": len(group), "median": size.median(), "bias": group["error"].median(), "p90": size.quantile(0.9),
            "within": float((size <= bound + 1e-9).mean()), "bound": bound,
        })  # fmt: skip
    return pd.DataFrame(lines)


def _short(text: str) -> str:
    return text if len(text) <= 70 else text[:67] + "..."
