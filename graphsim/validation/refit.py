"""Host constants of the engines, cross-validated over the models of a table: `graphsim validate served --refit`.

Every model's rows are judged with the constants that fit the other models of the same engine best. Each combination of
model, device and version has the same weight, regardless of its number of rows.
"""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from graphsim.errors import GraphsimError
from graphsim.validation.figures import Answered, figure
from graphsim.validation.loops import prepared
from graphsim.validation.served import FEW_CLIENTS, HEADLINES
from graphsim.validation.served_rows import CLEAN, ServedRow, served_rows

if TYPE_CHECKING:
    import pandas as pd

CANDIDATES = {
    "request_s": (0.004, 0.0065, 0.009, 0.012, 0.016),
    "expert_layer_s": (0.0, 0.25e-3, 0.5e-3, 1.0e-3, 1.5e-3, 2.5e-3),
}
"""Candidate values of each constant; other constants are those of the profiles."""


def left_out(path: str | Path) -> pd.DataFrame:
    """A row for each engine and model: the constants that fit the other models, and the medians of its errors.

    Columns: engine, model, rows, the constants, tpot, tpot_bias, ttft, ttft_bias. A model's last row has engine "all".
    Raises ConfigError for a file that cannot be read or has no known layout.
    """
    import pandas as pd

    rows = [row for row in served_rows(path) if _counts(row)]
    names, lines, errors = list(CANDIDATES), [], []
    for engine in sorted({row.engine for row in rows}):
        mine = [row for row in rows if row.engine == engine]
        models = np.array([row.model for row in mine])
        choices = list(product(CANDIDATES["request_s"], CANDIDATES["expert_layer_s"]))
        tried = list(_tried(mine))
        losses = np.stack([_weights(mine) * np.nansum(np.abs(np.log1p(found)), axis=1) for found in tried])
        for model in dict.fromkeys(models):
            held = models == model
            others = ~held if (~held).any() else held
            chosen = int(np.argmin(losses[:, others].sum(1)))
            best, found = choices[chosen], tried[chosen][held]
            errors.append(found)
            lines.append({"engine": engine, "model": model} | dict(zip(names, best, strict=True)) | _medians(found))
    lines.append({"engine": "all", "model": ""} | dict.fromkeys(names, np.nan) | _medians(np.concatenate(errors)))
    return pd.DataFrame(lines)


def _counts(row: ServedRow) -> bool:
    """Whether it is a clean row with few clients and a headline figure."""
    return row.judged == CLEAN and row.clients <= FEW_CLIENTS and bool(set(HEADLINES) & set(row.measured))


def _tried(rows: list[ServedRow]) -> np.ndarray[Any, Any]:
    """Errors of TPOT and TTFT by combination of constants and by row; nan for rows that are not simulated."""
    ways, blocks = CANDIDATES.values()
    found = np.full((len(ways), len(blocks), len(rows), 2), np.nan)
    for place, row in enumerate(rows):
        for second, block in enumerate(blocks):
            try:
                server = prepared(row, {"expert_layer_s": block})
            except GraphsimError:
                break
            for first, way in enumerate(ways):
                found[first, second, place] = _errors(row, server.answers(request_s=way))
    return found.reshape(-1, len(rows), 2)


def _errors(row: ServedRow, answers: Answered) -> tuple[float, float]:
    """Predicted over measured TPOT and TTFT, minus 1."""
    found = {
        HEADLINES[name]: figure(answers, name, 1.0) / row.measured[name] - 1.0
        for name in HEADLINES
        if name in row.measured
    }
    return found.get("tpot", np.nan), found.get("ttft", np.nan)


def _weights(rows: list[ServedRow]) -> np.ndarray[Any, Any]:
    """Weights of rows that give every combination of model, device and version the same total."""
    kinds = [(row.model, row.gpu, row.version) for row in rows]
    return np.array([1.0 / kinds.count(kind) for kind in kinds])


def _medians(errors: np.ndarray[Any, Any]) -> dict[str, float]:
    medians: dict[str, float] = {"rows": len(errors)}
    for what, found in zip(("tpot", "ttft"), errors.T, strict=True):
        medians |= {what: float(np.nanmedian(np.abs(found))), f"{what}_bias": float(np.nanmedian(found))}
    return medians
