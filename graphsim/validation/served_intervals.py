"""Intervals from serving benchmarks: residuals by engine, and the coverage of the resulting intervals.

Tables are those of `graphsim validate served`: a row for each figure, with id, metric, measured, predicted, problem,
judged, engine, model and concurrency. Errors of a model's rows are correlated, so that few models give wider intervals.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from graphsim.calibration.held_out import covered
from graphsim.calibration.uncertainty import groups_apart, quantiles_of
from graphsim.cost.residuals import ALL, SCORES
from graphsim.cost.served import CLIENTS
from graphsim.cost.surfaces.tables import Array
from graphsim.files.written import write_text

if TYPE_CHECKING:
    import pandas as pd

QUANTITIES = {"ttft_ms": "ttft_s", "mean_ttft_ms": "ttft_s", "tpot_ms": "tpot_s", "mean_tpot_ms": "tpot_s"}
"""Figures with intervals, by their names in the tables."""

CLEAN = "clean"
"""Value of `judged` of the rows that count."""

FEWEST = 20
"""Fewest rows with which a figure has residuals."""

FEWEST_APART = 30.0
"""Fewest independent rows for residuals of a single engine, which puts three of them beyond each end of an interval of
80 %. With fewer, the rows of all engines predict held-out models better."""

ABOUT = (
    "Quantiles of log(measured / predicted) of served benchmarks by engine, less the spread of their kernels' "
    "residuals. Made by graphsim validate served --record."
)


def counted(table: pd.DataFrame) -> pd.DataFrame:
    """The rows that count, with `quantity` and `residual`; `kernel_width` is 0 if it is not stated."""
    known = table[table["metric"].isin(list(QUANTITIES)) & (table["problem"] == "")]
    known = known[(known["measured"] > 0) & (known["predicted"] > 0)]
    known = known[known["judged"] == CLEAN] if "judged" in known.columns else known
    width = known["kernel_width"].fillna(0.0) if "kernel_width" in known.columns else 0.0
    return known.assign(
        quantity=known["metric"].map(QUANTITIES), residual=np.log(known["measured"] / known["predicted"]),
        kernel_width=width,
    )  # fmt: skip


def served_record(table: pd.DataFrame) -> dict[str, dict[str, dict[str, list[float]]]]:
    """Contents of `cost/served_residuals.json`, by engine, quantity and class of clients.

    table: its column `kernel_width`, if it has one, is that of log(high / low) of the 80 % interval that the kernels'
    residuals give; the server's part is the remainder of the total, as variances add up.
    """
    rows = counted(table)
    found: dict[str, dict[str, dict[str, list[float]]]] = {}
    for engine in sorted(rows["engine"].unique()):
        for quantity, part in rows.groupby("quantity", sort=True):
            classes: dict[str, list[float]] = {}
            for name, chosen in _classes(part).items():
                some = part[chosen]
                values = _quantiles(some[some["engine"] == engine], some)
                classes |= {name: values} if values else {}
            if ALL in classes:
                found.setdefault(str(engine), {})[str(quantity)] = classes
    return found


def _classes(rows: pd.DataFrame) -> dict[str, Array]:
    """Row masks of the classes of clients, and of all rows."""
    clients, lower = rows["concurrency"].to_numpy(dtype=float), 0.0
    classes: dict[str, Any] = {ALL: np.ones(len(rows), dtype=bool)}
    for name, upper in CLIENTS.items():
        chosen = (clients > lower) & (clients <= upper)
        classes |= {} if chosen.all() else {name: chosen}
        lower = upper
    return classes


def _quantiles(own: pd.DataFrame, every: pd.DataFrame) -> list[float]:
    """Quantiles of an engine's own rows, or of all engines' if it has too few; [] if these are too few as well."""
    apart = _apart(own)
    rows, apart = (own, apart) if apart >= FEWEST_APART else (every, _apart(every))
    if apart == 0.0:
        return []
    values = np.array(quantiles_of(rows["residual"].to_numpy(), apart))
    middle = values[len(values) // 2]
    whole = float(np.subtract(*np.interp([-SCORES[2], SCORES[2]], SCORES, values)))
    kernels = float(np.median(rows["kernel_width"]))
    share = np.sqrt(max(0.0, 1.0 - (kernels / whole) ** 2)) if whole > 0.0 else 0.0
    return [round(float(value), 3) for value in middle + share * (values - middle)]


def _apart(rows: pd.DataFrame) -> float:
    """Effective number of independent rows, given the correlation within a model; 0 for few rows or a single model."""
    if len(rows) < FEWEST or rows["model"].nunique() < 2:
        return 0.0
    return groups_apart(rows["residual"].to_numpy(), rows["model"].to_numpy(), len(rows))


def served_coverage(table: pd.DataFrame) -> pd.DataFrame:
    """Share of rows within intervals from residuals of other models.

    Columns: engine (`all` last), quantity, models, rows, coverage and width (see `covered`).
    """
    import pandas as pd

    rows = counted(table).assign(kernel_width=0.0).reset_index(drop=True)
    ends = np.full((2, len(rows)), np.nan)
    for (engine, model), held in rows.groupby(["engine", "model"], sort=True):
        others = rows[rows["model"] != model]
        mine = others if (others["engine"] == engine).any() else others.assign(engine=str(engine))
        told = served_record(mine).get(str(engine), {})
        for quantity, part in held.groupby("quantity"):
            if str(quantity) in told:
                ends[:, part.index] = _ends(part, told[str(quantity)])
    lines = []
    for quantity in sorted(rows["quantity"].unique()):
        mine = (rows["quantity"] == quantity).to_numpy()
        for engine in [*sorted(rows["engine"][mine].unique()), ALL]:
            chosen = mine if engine == ALL else mine & (rows["engine"] == engine).to_numpy()
            line: dict[str, Any] = {"engine": engine, "quantity": quantity, "models": rows["model"][chosen].nunique()}
            measured, predicted = (rows[name].to_numpy(dtype=float)[chosen] for name in ("measured", "predicted"))
            lines.append(line | {"rows": int(chosen.sum())} | covered(measured, predicted, ends[:, chosen]))
    return pd.DataFrame(lines)


def _ends(rows: pd.DataFrame, classes: dict[str, list[float]]) -> Array:
    which = np.searchsorted(list(CLIENTS.values()), rows["concurrency"].to_numpy(dtype=float), side="left")
    tables = [np.interp([SCORES[2], -SCORES[2]], SCORES, classes.get(name) or classes[ALL]) for name in CLIENTS]
    return np.asarray(rows["predicted"].to_numpy(dtype=float) * np.exp(np.stack(tables, axis=-1)[:, which]))


def save_served(table: pd.DataFrame, path: Path) -> None:
    """Write the residuals of a table's engines in the format of `cost/served_residuals.json`."""
    engines = served_record(table)
    lines = []
    for engine, quantities in engines.items():
        parts = [f"   {json.dumps(name)}: {json.dumps(classes)}" for name, classes in quantities.items()]
        lines.append(f"  {json.dumps(engine)}: {{\n" + ",\n".join(parts) + "\n  }")
    about = json.dumps(ABOUT)
    write_text(path, f'{{\n "about": {about},\n "engines": {{\n' + ",\n".join(lines) + "\n }\n}\n")
