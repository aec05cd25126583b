"""The tables of a simulated run: one row per request, an adapter, a class of requests, a run of identical steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from graphsim.serving.adapter_events import adapter_events
from graphsim.serving.figures import Floats, Ints, Latencies, grouped
from graphsim.serving.goodput import Judged, Limits
from graphsim.serving.run_log import STATUSES, RunLog
from graphsim.traffic.table import BASE, RequestTable

if TYPE_CHECKING:
    import pandas as pd

BASE_NAME = "(base model)"
"""What rows of requests without an adapter are called in tables of adapters."""


def request_frame(
    table: RequestTable, log: RunLog, latencies: Latencies, names: Sequence[str], classes: Sequence[str], rows: slice
) -> pd.DataFrame:
    """One row per request; times in seconds on one clock, nan where it did not come to that.

    adapter: missing for requests to the base model; arrival_s: when its client wanted to send it; sent_s: when it did
    """
    import pandas as pd

    def words(codes: Any, known: Sequence[str]) -> Any:
        return pd.Categorical.from_codes(codes[rows].astype(np.int32), categories=pd.Index(list(known), dtype=object))

    arrival_s = np.where(np.isnan(table.arrival_s), log.sent_s, table.arrival_s)
    columns: dict[str, Any] = {
        "adapter": words(table.adapter, names), "replica": np.zeros(len(table), dtype=np.int32)[rows],
        "arrival_s": arrival_s[rows], "sent_s": log.sent_s[rows], "admitted_s": log.admitted_s[rows],
        "first_token_s": log.first_token_s[rows], "finished_s": log.finished_s[rows],
        "input_tokens": table.input_tokens[rows], "output_tokens": table.output_tokens[rows],
        "ttft_s": latencies.ttft_s[rows], "tpot_s": latencies.tpot_s[rows], "e2e_s": latencies.e2e_s[rows],
        "preemptions": log.preemptions[rows], "load_stall_s": log.load_stall_s[rows],
        "status": words(log.status, STATUSES), "cached_tokens": log.cached_tokens[rows],
        "loaded_tokens": log.loaded_tokens[rows],
        "group": words(table.group, classes),
    }  # fmt: skip
    first = rows.indices(len(table))[0]
    return pd.DataFrame(columns, index=pd.RangeIndex(first, first + len(columns["replica"])))


def adapter_frame(
    table: RequestTable,
    log: RunLog,
    latencies: Latencies,
    ends_s: Floats,
    names: Sequence[str],
    percentiles: Sequence[float],
) -> pd.DataFrame:
    """A row an adapter, and one for the base model if it was asked for.

    requests: that were sent; loads, disk_loads: into a slot, of these from disk; switches: of the weights to this
    adapter, where it is merged; hits: requests let in without either; load_s: of all its loads and switches;
    load_stall_s: that its own requests waited for loads; longest_wait_s: from sending to the first step, or to the end
    of a request that had none; tokens_per_s: output tokens of an answer per second that its request was under way
    ends_s: when each request ended, whichever way
    """
    import pandas as pd

    count = len(names) + 1  # the base model's requests come last
    group = np.where(table.adapter == BASE, len(names), table.adapter)

    def total(values: Any) -> Any:
        return np.bincount(group, weights=np.asarray(values, dtype=float), minlength=count)

    loads = np.asarray(log.loads, dtype=float).reshape(-1, 4)
    switches = np.asarray(log.switches, dtype=float).reshape(-1, 3)
    events = adapter_events(log)

    def of_events(adapters: Floats, values: Floats) -> Floats:
        whose = np.where(adapters < 0, len(names), adapters).astype(np.int64)
        return np.asarray(np.bincount(whose, weights=values, minlength=count), dtype=float)

    sent, admitted = total(np.isfinite(log.sent_s)), total(np.isfinite(log.admitted_s))
    longest = np.zeros(count)
    np.fmax.at(longest, group, np.fmin(log.admitted_s, ends_s) - log.sent_s)
    under_way_s = total(np.nan_to_num(np.where(latencies.done, ends_s - log.sent_s, 0.0)))
    columns: dict[str, Any] = {
        "adapter": [*names, BASE_NAME], "requests": sent.astype(np.int64),
        "completed": total(latencies.done).astype(np.int64),
        "output_tokens": total(np.where(latencies.done, table.output_tokens, 0)).astype(np.int64),
    }  # fmt: skip
    for name, values in (
        ("ttft", latencies.ttft_s), ("tpot", latencies.tpot_s), ("e2e", latencies.e2e_s),
    ):  # fmt: skip
        found = grouped(np.where(latencies.done, values, np.nan), group, count, percentiles)
        columns |= {f"{what}_{name}_s": figures for what, figures in found.items()}
    number = of_events(loads[:, 2], np.ones(len(loads)))
    switched = of_events(switches[:, 2], np.ones(len(switches)))
    missed = of_events(events[:, 2], np.ones(len(events)))
    columns |= {
        "loads": number.astype(np.int64), "disk_loads": of_events(loads[:, 2], loads[:, 3]).astype(np.int64),
        "switches": switched.astype(np.int64),
        "hits": np.maximum(admitted - missed, 0).astype(np.int64), "load_s": of_events(events[:, 2], events[:, 1]),
        "load_stall_s": total(log.load_stall_s), "preemptions": total(log.preemptions).astype(np.int64),
        "longest_wait_s": longest,
        "tokens_per_s": np.where(under_way_s > 0, columns["output_tokens"] / np.maximum(under_way_s, 1e-12), np.nan),
    }  # fmt: skip
    frame = pd.DataFrame(columns)
    frame.loc[len(names), "hits"] = 0
    return frame if sent[-1] else frame.iloc[:-1]


def class_frame(
    table: RequestTable, log: RunLog, latencies: Latencies, classes: Sequence[Limits], found: Judged | None,
    percentiles: Sequence[float],
) -> pd.DataFrame:  # fmt: skip
    """One row per class: requests that were sent, limits, percentiles, and the share that met all limits (nan
    without)."""
    import pandas as pd

    count = len(classes)

    def total(values: Any) -> Any:
        return np.bincount(table.group, weights=np.asarray(values, dtype=float), minlength=count)

    columns: dict[str, Any] = {
        "group": [which.name for which in classes],
        "requests": total(np.isfinite(log.sent_s)).astype(np.int64),
        "completed": total(latencies.done).astype(np.int64),
    }
    for name in ("ttft_s", "tpot_s", "e2e_s"):
        columns[f"limit_{name}"] = [float(getattr(which, name)) for which in classes]
        values = np.where(latencies.done, getattr(latencies, name), np.nan)
        columns |= {f"{what}_{name}": v for what, v in grouped(values, table.group, count, percentiles).items()}
    if found is not None:
        known = total(found.known)
        columns["good_share"] = np.where(known > 0, total(found.good & found.known) / np.maximum(known, 1), np.nan)
    return pd.DataFrame(columns)


def step_frame(columns: dict[str, Floats], kv_blocks: int) -> pd.DataFrame:
    """One row per run of identical steps: time_s of each of its steps; tokens of each, of prompts and of answers.

    kv_use: share of the cache's blocks; stall_s: seconds of the whole run that loads took
    """
    import pandas as pd

    steps = np.maximum(columns["steps"], 1)

    def whole(name: str) -> Ints:
        return columns[name].astype(np.int64)

    return pd.DataFrame(
        {
            "start_s": columns["start_s"], "time_s": columns["seconds"] / steps, "steps": whole("steps"),
            "batch": whole("batch"), "tokens": columns["batch"] + columns["prompt_tokens"] / steps,
            "prompts": whole("prompts"), "prompt_tokens": whole("prompt_tokens"), "adapters": whole("adapters"),
            "kv_blocks": whole("kv_blocks"), "kv_use": columns["kv_blocks"] / max(kv_blocks, 1),
            "waiting": whole("waiting"), "stall_s": columns["stall_s"],
        }
    )  # fmt: skip
