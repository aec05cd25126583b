"""A table of scenarios as one self-contained page that sorts and filters, with a Pareto front of two figures.

For a table from `best`, the page begins with an explanation of the winner, which is simulated again.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphsim.analysis.explain import explain
from graphsim.errors import ConfigError, GraphsimError
from graphsim.export.html_page import asset, escaped, json_text, listed, substituted
from graphsim.files.written import write_text
from graphsim.result import Estimate
from graphsim.simulation import simulate
from graphsim.sweeps.best import MORE_IS_BETTER
from graphsim.sweeps.grid import DEFAULTS, REQUESTS
from graphsim.sweeps.job import inference_of
from graphsim.units import amount_text, seconds_text

if TYPE_CHECKING:
    import pandas as pd

MOST_ROWS = 20_000
"""Largest number of rows, which a browser still sorts and draws without delay."""

_AXES = (("latency_s", "tokens_per_s_per_gpu"), ("tpot_s", "tokens_per_s"), ("step_s", "tokens_per_s"))
"""Figures of the initial Pareto front: the first pair of which the table has both."""


def sweep_html(frame: pd.DataFrame, path: str | Path | None = None) -> str:
    """The page of a table from `gs.sweep` or `gs.best`, also written to `path` if given.

    Raises ConfigError for an empty table or one of more than MOST_ROWS rows, and where `path` is not writable.
    """
    if not 0 < len(frame) <= MOST_ROWS:
        raise ConfigError(
            f"to_html takes a table of 1 to {amount_text(MOST_ROWS)} rows, found {amount_text(len(frame))}; "
            "select some of them first, for example with graphsim.sweeps.best.pareto"
        )
    kinds = {str(name): _kind(str(name), frame[name]) for name in frame.columns}
    found = {
        "columns": kinds, "better": [name for name in kinds if name in MORE_IS_BETTER],
        "axes": _axes(kinds), "rows": _rows(frame),
    }  # fmt: skip
    content = {
        "title": escaped(_title(frame)),
        "style": resources.files("graphsim.export.explore").joinpath("assets", "page.css").read_text(encoding="utf-8"),
        "winner": _winner(frame), "data": f"const TABLE={json_text(found)};", "script": asset("sweep.js"),
    }  # fmt: skip
    page = substituted(asset("sweep.html"), content)
    if path is not None:
        write_text(path, page)
    return page


def _title(frame: pd.DataFrame) -> str:
    models, devices = (
        ", ".join(map(str, dict.fromkeys(frame[name]))) if name in frame else "" for name in ("model", "hardware")
    )
    what = "The best" if "tied" in frame else "A sweep"
    return f"{what} of {models or 'scenarios'}" + (f" on {devices}" if devices else "")


def _kind(name: str, column: pd.Series[Any]) -> str:
    """The display format of a column: seconds, bytes, watts, other numbers or text."""
    if column.dtype.kind not in "iuf":
        return "text"
    for ending in ("_s", "_bytes", "_j", "watts"):
        if name.endswith(ending) and not name.endswith("_per_s"):
            return ending.strip("_")
    return "number"


def _axes(kinds: Mapping[str, str]) -> list[str]:
    numbers = [name for name, kind in kinds.items() if kind != "text"]
    usual = next((pair for pair in _AXES if set(pair) <= set(numbers)), None)
    return list(usual or (numbers + numbers)[:2])


def _rows(frame: pd.DataFrame) -> list[list[Any]]:
    """The values of each row; None for numbers that are not finite."""
    columns = [[_plain(value) for value in frame[name].tolist()] for name in frame.columns]
    return [list(row) for row in zip(*columns, strict=True)]


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, bool | int | str) else str(value)


def _winner(frame: pd.DataFrame) -> str:
    """Explanation of the first row of `best`, or a sentence with the reason if it cannot be simulated again."""
    if "tied" not in frame:
        return ""
    row = {str(name): value for name, value in frame.iloc[0].items()}
    try:
        estimate = _again(row)
        told = explain(estimate)
    except (GraphsimError, KeyError, TypeError, ValueError) as error:
        reason = escaped(f"It is not explained here: {error}")
        return f'<section><h2>Why the first one</h2><p class="hint">{reason}</p></section>'
    lines = [
        f"{quantity} {seconds_text(total)}: "
        + ", ".join(
            f"{name.removesuffix('_s')} {seconds_text(value)}" for name, value in told.causes(quantity).items() if value
        )
        for quantity, total in told.totals.items()
    ]
    return f"<section>{listed('Why the first one', [told.title, *lines, *told.findings, *told.notes])}</section>"


def _again(row: Mapping[str, Any]) -> Estimate:
    """The estimate of a row. Raises ConfigError if the table does not state all its arguments."""
    missing = [name for name in ("model", "hardware", *REQUESTS) if name not in row]
    if missing:
        raise ConfigError(f"the table has no column {missing[0]}")
    chosen = {name: _chosen(name, row.get(name, default)) for name, default in DEFAULTS.items()} | {"passes": ()}
    inference = inference_of(chosen)
    requests = {name: getattr(inference.requests, name) for name in REQUESTS}
    estimate = simulate(inference.deployment, **requests)
    for name in ("ttft_s", "tpot_s"):
        if not math.isclose(float(getattr(estimate, name)), float(row[name]), rel_tol=1e-6):
            raise ConfigError(
                "the table does not record everything its rows were simulated with, such as passes or custom files"
            )
    return estimate


def _chosen(name: str, value: Any) -> Any:
    """The value that a sweep takes for a choice, from its label in the table."""
    if value is None or isinstance(value, float) and math.isnan(value):
        return None
    return value.split("+") if name == "targets" and isinstance(value, str) else value
