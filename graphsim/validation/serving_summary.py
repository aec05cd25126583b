"""A short summary of a long table of `graphsim validate serving`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from graphsim.validation.measured_run import HALVES

if TYPE_CHECKING:
    import pandas as pd

REST = "mean_e2e_less_ttft_ms"
"""Time of a request after its first token: the difference of two figures of the same run."""

SERVED, KEPT_UP = 0.95, "95 % of the load answered"
"""Share of the offered load below which the queue grows, so that waits measure the run's length, not the server."""


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Errors of simulated figures by metric: rows, median and 90th percentile of the absolute error, median error.

    judged: "" or the reason why rows are judged separately
    where: "" for all rows, or the subset
    held_out: the median over the half of the runs that no constants were chosen on
    For a table of other simulators: the median absolute errors of theirs and of graphsim on the same rows, by
    simulator and metric.
    """
    import pandas as pd

    known = table[table["error"].notna() & np.isfinite(table["error"])].copy()
    if "peer_error" in known.columns:
        return _peers(known)
    for name in ("judged", "half"):
        known[name] = known[name].fillna("") if name in known.columns else ""
    known = pd.concat([known.assign(where=""), _rests(known), _kept_up(known)], ignore_index=True)
    lines = []
    for (judged, metric, where), part in known.groupby(["judged", "metric", "where"], sort=True):
        sizes = part["error"].abs()
        held_out = sizes[part["half"] == HALVES[1]]
        lines.append({
            "judged": judged, "metric": metric, "where": where, "rows": len(part), "median": sizes.median(),
            "held_out": held_out.median() if len(held_out) else np.nan, "p90": sizes.quantile(0.9),
            "bias": part["error"].median(),
        })  # fmt: skip
    return pd.DataFrame(lines)


def _rests(known: pd.DataFrame) -> pd.DataFrame:
    """E2E minus TTFT of the runs that have both."""
    wide = {
        name: known[known["metric"] == f"mean_{name}_ms"].drop_duplicates("id").set_index("id")
        for name in ("e2e", "ttft")
    }
    both = wide["e2e"].index.intersection(wide["ttft"].index)
    e2e, ttft = (wide[name].loc[both] for name in ("e2e", "ttft"))
    error = (e2e["predicted"] - ttft["predicted"]) / (e2e["measured"] - ttft["measured"]) - 1.0
    return e2e[["judged", "half"]].assign(metric=REST, where="", error=error).reset_index()


def _kept_up(known: pd.DataFrame) -> pd.DataFrame:
    """Times of runs whose server kept up, if the table states the offered load."""
    if "served_share" not in known.columns:
        return known.iloc[:0]
    return known[(known["served_share"] >= SERVED) & known["metric"].str.endswith("_ms")].assign(where=KEPT_UP)


def _peers(known: pd.DataFrame) -> pd.DataFrame:
    import pandas as pd

    lines: list[dict[str, Any]] = []
    for (simulator, metric, judged), part in known.groupby(["simulator", "metric", "judged"], sort=True):
        lines.append({
            "simulator": simulator, "metric": metric, "judged": judged, "rows": len(part),
            "peer_median": part["peer_error"].abs().median(), "graphsim_median": part["error"].abs().median(),
        })  # fmt: skip
    return pd.DataFrame(lines)
