"""Serving benchmarks compared with the estimate: `graphsim validate served`.

Every configuration is simulated in a closed loop (`graphsim.serving.loop`): lengths as the benchmark draws them, steps
at the prices of the deployment and its engine, the settings of its start-up script (`servers.py`). The file's own
figures are predicted, one per row.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from graphsim.errors import GraphsimError
from graphsim.validation.figures import Answered, figure
from graphsim.validation.judged import judged_line
from graphsim.validation.loops import answers_of
from graphsim.validation.served_rows import CLEAN, ServedRow, served_rows

if TYPE_CHECKING:
    import pandas as pd

FEW_CLIENTS = 16
"""Largest number of clients without contention: the server runs all of them at once, and prompts rarely wait for each
other.
"""


def validate_served(path: str | Path) -> pd.DataFrame:
    """A row for each measured figure: id, metric, measured, predicted, error, problem, and how the row is judged.

    error: predicted / measured - 1; nan if nothing was measured or predicted
    judged: `clean`, or the reason why the configuration is judged separately
    doubt: the file's remark on it
    Raises ConfigError for a file that cannot be read or has no known layout.
    """
    import pandas as pd

    return pd.DataFrame([line for row in served_rows(path) for line in lines_of(row)])


def lines_of(row: ServedRow) -> list[dict[str, Any]]:
    """The figures of a row, each with its prediction."""
    found, problem = None, row.problem
    if not problem:
        try:
            found = answers_of(row)
        except GraphsimError as error:
            problem = str(error)
    return [_line(row, name, measured, found, problem) for name, measured in row.measured.items()]


def _line(row: ServedRow, name: str, measured: float, found: Answered | None, problem: str) -> dict[str, Any]:
    devices = row.pool.devices + (row.prompts.devices if row.prompts else 0)
    predicted = np.nan if found is None else figure(found, name, devices)
    judged = CLEAN if row.judged == "cold" and "ttft" not in name else row.judged
    return judged_line(row.id, name, measured, predicted, problem) | {
        "judged": judged, "doubt": row.doubt, "engine": row.engine, "version": row.version, "model": row.model,
        "hardware": row.gpu, "precision": row.precision, "concurrency": row.clients,
        "input_tokens": row.input_tokens, "output_tokens": row.output_tokens, "tp": row.pool.tp, "ep": row.pool.ep,
        "replicas": row.pool.replicas,
    }  # fmt: skip


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Median absolute and signed errors of TTFT and TPOT: clean rows by engine and model, others separately.

    Columns: judged, concurrency (up to FEW_CLIENTS, or more), engine, model, rows, tpot, tpot_bias, ttft, ttft_bias.
    """
    import pandas as pd

    known = table[(table["problem"] == "") & table["error"].notna()].copy()
    known["figure"] = known["metric"].map(HEADLINES)
    known = known[known["figure"].notna()]
    known["load"] = np.where(known["concurrency"] <= FEW_CLIENTS, f"up to {FEW_CLIENTS}", "above")
    parts = [_medians(known[known["judged"] == CLEAN], by) for by in ((), ("engine",), ("engine", "model"))]
    parts.append(_medians(known[known["judged"] != CLEAN], ("engine",)))
    return pd.concat(parts, ignore_index=True).fillna("")


HEADLINES = {"ttft_ms": "ttft", "mean_ttft_ms": "ttft", "tpot_ms": "tpot", "mean_tpot_ms": "tpot"}
"""Figures of a summary, by their names in the tables."""


def _medians(known: pd.DataFrame, by: tuple[str, ...]) -> pd.DataFrame:
    import pandas as pd

    keys = ["judged", "load", *by]
    if known.empty:
        return pd.DataFrame()
    known = known.assign(size=known["error"].abs())
    wide = known.groupby([*keys, "figure"]).agg(
        error=("size", "median"), bias=("error", "median"), rows=("size", "size")
    )
    lines = []
    for key in dict.fromkeys(name[:-1] for name in wide.index):
        line: dict[str, Any] = dict(zip(keys, key, strict=True))
        for what in ("tpot", "ttft"):
            if (*key, what) in wide.index:
                found = wide.loc[(*key, what)]
                line |= {"rows": int(found["rows"]), what: found["error"], f"{what}_bias": found["bias"]}
        lines.append(line)
    return pd.DataFrame(lines).sort_values(["judged", "load", *by], ascending=[True, False, *(True for _ in by)])
