"""AIPerf's profile_export.jsonl: one record per request, each metric with its unit (ai-dynamo/aiperf).

The layout is described in docs/tutorials/working-with-profile-exports.md. Its `inter_token_latency` is one mean per
request, elsewhere called TPOT; its `inter_chunk_latency` is the list of gaps, elsewhere called ITL. Early releases
wrote `ttft`.
"""

from __future__ import annotations

from collections.abc import Iterator, Set
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from graphsim.traffic.formats.answered import Answered, tpot
from graphsim.traffic.formats.cells import Number, Record, since_first
from graphsim.traffic.formats.chains import of_conversations
from graphsim.traffic.formats.found import Found
from graphsim.traffic.formats.trace import Wanted
from graphsim.traffic.table import NOBODY

LAYOUT = "metadata and metrics of each request (AIPerf's profile_export.jsonl)"

PER_SECOND = {"ns": 1e9, "us": 1e6, "µs": 1e6, "ms": 1e3, "s": 1.0, "sec": 1.0, "seconds": 1.0}
"""Units in which AIPerf gives times."""


@dataclass(slots=True)
class _Rows:
    start: list[Number] = field(default_factory=list)
    end: list[Number] = field(default_factory=list)
    inputs: list[int] = field(default_factory=list)
    outputs: list[int] = field(default_factory=list)
    ttft_s: list[float] = field(default_factory=list)
    e2e_s: list[float] = field(default_factory=list)
    gaps_s: list[float] = field(default_factory=list)
    turn: list[tuple[str, float]] = field(default_factory=list)


def matches(keys: Set[str]) -> bool:
    """Whether JSON lines with these keys have this layout."""
    return {"metadata", "metrics"} <= keys


def read(records: Iterator[Record], path: Path, wanted: Wanted) -> Found:
    """The requests in a file; turns of a conversation follow each other. Raises ConfigError for invalid data."""
    answered = answers(records, path)
    found = Found(
        seconds=np.where(answered.after == NOBODY, answered.start_s, np.nan), input_tokens=answered.input_tokens,
        output_tokens=answered.output_tokens, after=answered.after, think_s=answered.think_s,
        notes=list(answered.notes),
    )  # fmt: skip
    if wanted.prefixes and answered.after is not None:
        found.chains, repeats = of_conversations(answered.after, answered.input_tokens, answered.output_tokens)
        if repeats:
            found.notes.append(
                f"prompts that are taken to repeat what was said before: {repeats}; prefixes=False makes them new"
            )
    return found


def answers(records: Iterator[Record], path: Path) -> Answered:
    """The measured times of the answered requests, in the order in which they were sent."""
    rows, failed, other = _Rows(), 0, 0
    for record in records:
        about = record.inside("metadata")
        if about.data.get("benchmark_phase", "profiling") != "profiling":
            other += 1
        elif record.data.get("error") is not None or about.data.get("was_cancelled"):
            failed += 1
        else:
            _add(rows, about, record.inside("metrics"))
    order = sorted(range(len(rows.start)), key=lambda row: rows.start[row])
    after, think_s = _followed(rows, order)
    ttft_s, e2e_s, outputs = (np.array(found, dtype=float)[order] for found in (rows.ttft_s, rows.e2e_s, rows.outputs))
    notes = [f"requests of warm-up are left out: {other}"] if other else []
    notes += [f"requests that failed or were cancelled are left out: {failed}"] if failed else []
    starts = [rows.start[row] for row in order]
    return Answered(
        start_s=since_first(starts, 1e9), input_tokens=np.array(rows.inputs, dtype=float)[order],
        output_tokens=outputs, ttft_s=ttft_s, e2e_s=e2e_s, tpot_s=tpot(ttft_s, e2e_s, outputs),
        gaps_s=np.array(rows.gaps_s, dtype=float), after=np.array(after, dtype=np.int64), think_s=np.array(think_s),
        failed=failed, notes=notes,
    )  # fmt: skip


def seconds(metric: Record, key: str, unit: object) -> float:
    """The time of a metric in seconds. Raises ConfigError for an unknown unit."""
    if not isinstance(unit, str) or unit not in PER_SECOND:
        raise metric.wrong("unit", unit, f"one of {', '.join(PER_SECOND)}")
    return metric.number(key) / PER_SECOND[unit]


def _add(rows: _Rows, about: Record, metrics: Record) -> None:
    rows.start.append(about.number("request_start_ns"))
    rows.end.append(about.number("request_end_ns") if "request_end_ns" in about else rows.start[-1])
    rows.inputs.append(metrics.inside("input_sequence_length").tokens("value"))
    rows.outputs.append(metrics.inside("output_sequence_length").tokens("value"))
    rows.ttft_s.append(_time(metrics, "time_to_first_token", "ttft"))
    rows.e2e_s.append(_time(metrics, "request_latency"))
    rows.gaps_s += _gaps(metrics)
    turn = about.data.get("turn_index")
    who = about.data.get("x_correlation_id") or about.data.get("conversation_id") or len(rows.start)
    rows.turn.append((str(who), turn if isinstance(turn, int) else 0))


def _time(metrics: Record, *spellings: str) -> float:
    key = next((key for key in spellings if key in metrics), None)
    if key is None:
        return float("nan")
    metric = metrics.inside(key)
    return seconds(metric, "value", metric.data.get("unit"))


def _gaps(metrics: Record) -> list[float]:
    if "inter_chunk_latency" not in metrics:
        return []
    metric = metrics.inside("inter_chunk_latency")
    unit, values = metric.data.get("unit"), metric.data.get("value")
    return [
        seconds(Record(metric.path, metric.line, {"inter_chunk_latency": gap}), "inter_chunk_latency", unit)
        for gap in (values if isinstance(values, list) else [values])
    ]


def _followed(rows: _Rows, order: list[int]) -> tuple[list[int], list[float]]:
    """The predecessor of each request, as an index in `order`, and the pause in seconds after its answer."""
    places = {rows.turn[row]: place for place, row in enumerate(order)}
    after, think_s = [], []
    for place, row in enumerate(order):
        who, turn = rows.turn[row]
        leader = places.get((who, turn - 1), NOBODY) if turn > 0 else NOBODY
        leader = leader if leader < place else NOBODY
        after.append(leader)
        pause = (rows.start[row] - rows.end[order[leader]]) / 1e9 if leader != NOBODY else 0.0
        think_s.append(max(0.0, pause))
    return after, think_s
