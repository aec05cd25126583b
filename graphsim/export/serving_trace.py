"""The timeline of a served run for Perfetto (https://ui.perfetto.dev) and chrome://tracing.

The format is that of `graphsim.export.trace`, with counters `C` and instants `i` in addition.
"""

from __future__ import annotations

import heapq
import json
from collections.abc import Iterable, Iterator, Sequence
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from graphsim.errors import ConfigError
from graphsim.export.trace_events import Event, meta, order
from graphsim.files.written import write_text
from graphsim.result import plain
from graphsim.serving.run_log import STATUSES
from graphsim.serving.service_view import title_of
from graphsim.units import amount_text, checked_number

if TYPE_CHECKING:
    from graphsim.serving.served_run import ServedRun

ENGINE, REQUESTS = 1, 2
"""Processes of the trace: the engine's work, and the requests with their waits."""
PROCESSES = 2
"""Number of processes of each engine."""

STEPS, COUNTS = 1, 0
_COLOURS = {
    "decode": "thread_state_runnable", "prefill": "thread_state_running", "mixed": "rail_response", "load": "bad",
    "switch": "yellow", "queue": "grey", "generation": "thread_state_runnable", "request": "generic_work",
}  # fmt: skip


def serving_trace(
    service: ServedRun,
    path: str | Path | None = None,
    *,
    start_s: float = 0.0,
    end_s: float | None = None,
    requests: bool = True,
) -> dict[str, Any]:
    """A run as a trace document, also written to `path` if given; all of it, or the events that overlap a time span.

    The engine's steps (runs of identical steps are one slice), adapter loads, switches of merged weights and
    preemptions; queue, batch, KV cache and adapters of the batch as counters; and, if `requests`, each request with
    its wait, its prompt and its generation, in one lane per request in flight. Each replica of a fleet has its own
    processes.
    path: the file to write, None for none
    start_s, end_s: the span, in seconds of the run's clock
    requests: whether requests are included
    Raises ConfigError for an empty or invalid span, and if `path` is not writable.
    """
    first = float(checked_number("start_s", start_s, 0.0, whole=False, one=True))
    last = inf if end_s is None else float(checked_number("end_s", end_s, 0.0, whole=False, one=True))
    if last <= first:
        raise ConfigError(
            f"end_s = {amount_text(last)} is not allowed; expected seconds above start_s = {amount_text(first)}"
        )
    span = (first, last)
    events: list[Event] = []
    names: list[Event] = []
    for number, engine in enumerate(service.engines):
        own = _of_engine(engine, service.rows_of(number), span, requests=requests)
        whose = f"replica {number}: " if service.servers > 1 else ""
        events += _shifted(own, number)
        names += _shifted(_names(own, whose), number)
    document: dict[str, Any] = {
        "traceEvents": [*names, *sorted(events, key=order)],
        "displayTimeUnit": "ms",
        "otherData": {"title": title_of(service), **plain(service.summary()), "warnings": list(service.warnings)},
    }
    if path is not None:
        write_text(path, json.dumps(document, ensure_ascii=True, allow_nan=False))
    return document


def _of_engine(engine: ServedRun, rows: Sequence[int], span: tuple[float, float], *, requests: bool) -> list[Event]:
    """Events of one engine.

    rows: indices of its requests
    """
    own = [*_steps(engine, span), *_loads(engine, span), *_counters(engine, span), *_preemptions(engine, rows, span)]
    return own + (list(_requests(engine, rows, span)) if requests else [])


def _shifted(events: Iterable[Event], engine: int) -> list[Event]:
    """Events moved to the processes of an engine, which are numbered in the order of the engines."""
    found = [event | {"pid": event["pid"] + engine * PROCESSES} for event in events]
    return [
        event | {"args": {"sort_index": event["pid"]}} if event["name"] == "process_sort_index" else event
        for event in found
    ]


def _slice(
    place: tuple[int, int], name: str, start_s: float, end_s: float, kind: str, args: dict[str, Any] | None = None
) -> Event:
    """A slice; times are rounded to nanoseconds, so that adjacent slices have no gap."""
    start, end = round(start_s * 1e9), round(end_s * 1e9)
    event = {"name": name, "ph": "X", "ts": start / 1e3, "dur": (end - start) / 1e3, "pid": place[0], "tid": place[1]}
    return event | {"cat": kind, "cname": _COLOURS[kind]} | ({"args": plain(args)} if args else {})


def _within(start: Any, end: Any, span: tuple[float, float]) -> Any:
    """Indices of the intervals that overlap a span."""
    return np.flatnonzero((start <= span[1]) & (end >= span[0]))


def _steps(service: ServedRun, span: tuple[float, float]) -> Iterator[Event]:
    columns = service.over_time.columns
    ends = columns["start_s"] + columns["seconds"]
    for i in _within(columns["start_s"], ends, span):
        row = {name: values[i] for name, values in columns.items()}
        batch, prompts, steps = int(row["batch"]), int(row["prompts"]), int(row["steps"])
        kind = "decode" if not prompts else "mixed" if batch else "prefill"
        parts = [f"{int(row['prompt_tokens'])} prompt tokens"] if prompts else []
        parts += [f"batch {batch}"] if batch else []
        times = f" × {steps}" if steps > 1 else ""
        args = {
            name: int(row[name])
            for name in ("steps", "batch", "prompts", "prompt_tokens", "adapters", "kv_blocks", "waiting")
        }
        args |= {"step_ms": 1e3 * row["seconds"] / max(steps, 1), "load_stall_ms": 1e3 * row["stall_s"]}
        yield _slice((ENGINE, STEPS), f"{kind}{times}: {', '.join(parts)}", row["start_s"], ends[i], kind, args)


def _loads(service: ServedRun, span: tuple[float, float]) -> Iterator[Event]:
    names = service.adapter_names
    rows = [("load", *row) for row in service.log.loads] + [("switch", *row, 0) for row in service.log.switches]
    rows = sorted((row for row in rows if row[1] <= span[1] and row[1] + row[2] >= span[0]), key=lambda row: row[1])
    for lane, (kind, start_s, seconds, adapter, disk) in zip(_lanes(rows), rows, strict=True):
        name = names[int(adapter)] if 0 <= adapter < len(names) else "base model"
        what = f"{kind} {name}" + (" from disk" if disk else "")
        yield _slice((ENGINE, STEPS + 1 + lane), what, start_s, start_s + seconds, kind, {"adapter": name})


def _lanes(rows: Sequence[tuple[Any, ...]]) -> list[int]:
    """The lowest free lane of each row of (anything, start, seconds, …), in order of time."""
    free: list[int] = []
    busy: list[tuple[float, int]] = []
    found, made = [], 0
    for _, start, seconds, *_ in rows:
        while busy and busy[0][0] <= start + 1e-12:
            heapq.heappush(free, heapq.heappop(busy)[1])
        if free:
            lane = heapq.heappop(free)
        else:
            lane, made = made, made + 1
        heapq.heappush(busy, (start + seconds, lane))
        found.append(lane)
    return found


def _counters(service: ServedRun, span: tuple[float, float]) -> Iterator[Event]:
    """Counter events at each change, and 0 when the engine becomes idle."""
    columns = service.over_time.columns
    start, ends = columns["start_s"], columns["start_s"] + columns["seconds"]
    kv = 100.0 * columns["kv_blocks"] / max(service.rules.kv_blocks, 1)
    series = {
        "queue": ("requests", columns["waiting"]), "batch": ("sequences", columns["batch"]),
        "KV cache": ("percent", np.round(kv, 2)), "adapters in the batch": ("adapters", columns["adapters"]),
    }  # fmt: skip
    for i in _within(start, ends, span):
        idle = i + 1 == len(start) or start[i + 1] > ends[i] + 1e-9
        for name, (unit, values) in series.items():
            if i == 0 or idle or start[i] > ends[i - 1] + 1e-9 or values[i] != values[i - 1] or start[i] < span[0]:
                yield _count(name, unit, start[i], values[i])
            if idle:
                yield _count(name, unit, ends[i], 0.0)


def _count(name: str, unit: str, at_s: float, value: float) -> Event:
    shown = int(value) if float(value).is_integer() else float(value)
    ts = round(float(at_s) * 1e9) / 1e3
    return {"name": name, "ph": "C", "ts": ts, "pid": ENGINE, "tid": COUNTS, "args": {unit: shown}}


def _preemptions(service: ServedRun, numbers: Sequence[int], span: tuple[float, float]) -> Iterator[Event]:
    for at_s, row in service.log.evicted:
        if span[0] <= at_s <= span[1]:
            request = numbers[int(row)]
            event = {"name": f"request {request} preempted", "ph": "i", "ts": round(at_s * 1e9) / 1e3, "s": "t"}
            yield event | {"pid": ENGINE, "tid": STEPS, "cat": "preemption", "args": {"request": request}}


def _requests(service: ServedRun, numbers: Sequence[int], span: tuple[float, float]) -> Iterator[Event]:
    log, table = service.log, service.table
    ends = service.ends_s
    known = np.flatnonzero(np.isfinite(log.sent_s) & (log.sent_s <= span[1]) & (ends >= span[0]))
    known = known[np.argsort(log.sent_s[known], kind="stable")]
    rows = [(i, log.sent_s[i], ends[i] - log.sent_s[i]) for i in known.tolist()]
    for lane, (i, sent_s, _) in zip(_lanes(rows), rows, strict=True):
        place, adapter = (REQUESTS, lane + 1), int(table.adapter[i])
        args = {
            "adapter": service.adapter_names[adapter] if adapter >= 0 else None, "status": STATUSES[log.status[i]],
            "input_tokens": int(table.input_tokens[i]), "output_tokens": int(table.output_tokens[i]),
            "cached_tokens": int(log.cached_tokens[i]), "preemptions": int(log.preemptions[i]),
            "ttft_ms": 1e3 * service.latencies.ttft_s[i], "tpot_ms": 1e3 * service.latencies.tpot_s[i],
        }  # fmt: skip
        yield _slice(place, f"request {numbers[i]}", sent_s, ends[i], "request", args)
        marks = [sent_s, log.admitted_s[i], log.first_token_s[i]]
        for kind, start, end in zip(("queue", "prefill", "generation"), marks, [*marks[1:], ends[i]], strict=True):
            until = min(float(end), float(ends[i])) if end == end else float(ends[i])
            if start == start and until > start:
                yield _slice(place, kind, start, until, kind)


def _names(events: Sequence[Event], whose: str) -> Iterator[Event]:
    """Events that name and order the processes and tracks of one engine."""
    tracks = sorted({(event["pid"], event["tid"]) for event in events if event["ph"] != "C"} | {(ENGINE, STEPS)})
    for pid, name in ((ENGINE, "engine"), (REQUESTS, "requests")):
        if any(track[0] == pid for track in tracks):
            yield meta("process_name", pid, 0, {"name": whose + name})
            yield meta("process_sort_index", pid, 0, {"sort_index": pid})
    for pid, tid in tracks:
        engine = "steps" if tid == STEPS else "adapter loads" if tid == STEPS + 1 else f"adapter loads {tid - STEPS}"
        yield meta("thread_name", pid, tid, {"name": engine if pid == ENGINE else f"lane {tid}"})
        yield meta("thread_sort_index", pid, tid, {"sort_index": tid})
