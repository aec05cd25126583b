"""Tables of a fleet's run: its replicas, and one replica's part of the requests."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import fields, replace
from math import inf
from typing import TYPE_CHECKING, Any

import numpy as np

from graphsim.serving.run_log import Ints, RunLog
from graphsim.serving.service import Service
from graphsim.serving.utilisation import Utilisation
from graphsim.traffic.table import NOBODY, RequestTable

if TYPE_CHECKING:
    import pandas as pd

SUMS = {"early_queue", "late_queue", "early_open", "late_open", "rate"}
PEAKS = {"kv_peak", "running_peak", "seconds"}
"""Fields of a fleet's Utilisation that are not means."""
OF_REQUESTS = (
    "sent_s", "received_s", "admitted_s", "first_token_s", "finished_s", "status", "preemptions", "cached_tokens",
    "load_stall_s", "loaded_tokens",
)  # fmt: skip


def some_of(table: RequestTable, log: RunLog, rows: Ints) -> RequestTable:
    """Some requests as a separate table without sessions, with their actual times of sending."""
    columns: dict[str, Any] = {
        name: getattr(table, name)[rows]
        for name in ("arrival_s", "input_tokens", "output_tokens", "adapter", "priority", "group", "think_s")
    }
    arrival_s = columns.pop("arrival_s")
    columns["arrival_s"] = np.where(np.isnan(arrival_s), log.sent_s[rows], arrival_s)
    return RequestTable(after=np.full(len(rows), NOBODY, dtype=np.int64), prefixes=None, **columns)


def log_of(whole: RunLog, own: RunLog, rows: Ints) -> RunLog:
    """The log of one replica, with its requests alone."""
    place = {int(row): number for number, row in enumerate(rows)} if own.evicted else {}
    return replace(
        own, **{name: getattr(whole, name)[rows] for name in OF_REQUESTS},
        evicted=[(at, place[row]) for at, row in own.evicted if row in place], end_s=whole.end_s,
        interrupted=whole.interrupted,
    )  # fmt: skip


def replica_frame(
    alone: Sequence[Service], spans: Sequence[tuple[float, float]], logs: Sequence[RunLog]
) -> pd.DataFrame:
    """One row per replica.

    requests: number routed to it; busy, kv, kv_peak, running, load: as in `Utilisation`; waits: share of the time with
    a queue; adapters: different ones that it loaded; loads, disk_loads, load_s: of adapters into its slots
    started_s, ended_s: when it was started, and empty after it had been taken away (inf: never)
    """
    import pandas as pd

    rows = []
    for number, (service, span, log) in enumerate(zip(alone, spans, logs, strict=True)):
        used, seen = service.utilisation, service.latencies
        loads = np.asarray(log.loads, dtype=float).reshape(-1, 4)
        done = seen.done
        row: dict[str, Any] = {
            "replica": number, "requests": len(service.table), "completed": int(done.sum()),
            "output_tokens": int(service.table.output_tokens[done].sum()),
        }  # fmt: skip
        for name, values in (("ttft", seen.ttft_s), ("tpot", seen.tpot_s), ("e2e", seen.e2e_s)):
            known = values[done & np.isfinite(values)]
            row[f"mean_{name}_s"] = float(known.mean()) if len(known) else np.nan
            row[f"p99_{name}_s"] = float(np.percentile(known, 99.0)) if len(known) else np.nan
        row |= {
            "load": used.load, "busy": used.busy, "kv": used.kv, "kv_peak": used.kv_peak, "running": used.running,
            "waits": used.waiting, "preemptions": int(service.log.preemptions.sum()),
            "adapters": len({int(adapter) for adapter in loads[:, 2]}), "loads": len(loads),
            "disk_loads": int(loads[:, 3].sum()), "load_s": float(loads[:, 1].sum()),
            "started_s": span[0], "ended_s": span[1],
        }  # fmt: skip
        rows.append(row)
    return pd.DataFrame(rows)


def utilisation_of_all(each: Sequence[Utilisation]) -> Utilisation:
    """Utilisation of several replicas together."""
    found: dict[str, Any] = {}
    for field in fields(Utilisation):
        values = [getattr(one, field.name) for one in each]
        if field.name == "limit":
            fullest = max(each, key=lambda one: one.load)
            found["limit"] = fullest.limit if fullest.load > 0 else Counter(values).most_common(1)[0][0]
        elif field.name in SUMS:
            found[field.name] = float(sum(values))
        else:
            found[field.name] = float(max(values, default=-inf) if field.name in PEAKS else np.mean(values))
    return Utilisation(**found)
