"""What a reader found in a file, and how it becomes a trace: checked, in order, cut to what was asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import isinf
from pathlib import Path
from typing import Any

import numpy as np

from graphsim.errors import ConfigError
from graphsim.traffic.formats.adapters import numbered
from graphsim.traffic.formats.cells import Number, since_first
from graphsim.traffic.formats.trace import Trace, Wanted
from graphsim.traffic.table import NOBODY, Floats, Ints, Prefixes, request_table
from graphsim.units import amount_text, short

Chain = tuple[Sequence[int], Sequence[int]]
"""Segments of a prompt and their ends in tokens, as in `Prefixes`."""


@dataclass(slots=True, kw_only=True)
class Found:
    """Requests as read from a file.

    seconds: time of sending of each request; nan if it follows another
    input_tokens, output_tokens: integers from 0
    after: earlier row whose answer each request waits for
    think_s: pause in seconds after that answer
    adapter: adapter name of each request
    chains: common beginnings of prompts
    """

    seconds: Floats
    input_tokens: Floats
    output_tokens: Floats
    after: Ints | None = None
    think_s: Floats | None = None
    adapter: Sequence[Any] | None = None
    chains: list[Chain] | None = None
    notes: list[str] = field(default_factory=list)
    concurrency: int | None = None


@dataclass(slots=True)
class Columns:
    """Requests collected by a reader of JSON lines, one value per request; names as in `Found`."""

    times: list[Number] = field(default_factory=list)
    inputs: list[int] = field(default_factory=list)
    outputs: list[int] = field(default_factory=list)
    after: list[int] = field(default_factory=list)
    think_s: list[float] = field(default_factory=list)

    def found(self, per_second: float, adapter: Sequence[Any] | None, notes: list[str]) -> Found:
        """The collected requests.

        per_second: units of the times per second
        adapter: adapter name of each request
        notes: notes on the file
        """
        return Found(
            seconds=since_first(self.times, per_second), input_tokens=np.array(self.inputs, dtype=float),
            output_tokens=np.array(self.outputs, dtype=float), after=np.array(self.after, dtype=np.int64),
            think_s=np.array(self.think_s, dtype=float), adapter=adapter, notes=notes,
        )  # fmt: skip


def trace_of(found: Found, path: Path, wanted: Wanted) -> Trace:
    """The requested trace. Raises ConfigError if no request remains."""
    if wanted.adapter is not None and found.adapter is None:
        raise ConfigError(
            f"{path}: adapter = {short(wanted.adapter)} is not allowed; no request of the file has such a key"
        )
    notes = list(found.notes)
    count = len(found.seconds)
    if not count:
        raise ConfigError(f"{path}: holds no requests, at most a header")
    after = np.full(count, NOBODY, dtype=np.int64) if found.after is None else found.after
    runs = (found.input_tokens > 0) & (found.output_tokens > 0)
    if not runs.all():
        notes.append(f"requests without input or output tokens are left out: {count - runs.sum()} of {count}")
        after = _past(after, runs)
    rows, seconds = _chosen(found.seconds, after, runs, wanted, notes)
    if not len(rows):
        raise ConfigError(f"{path}: holds no request to simulate{_cut_text(wanted, count)}")
    place = np.full(count + 1, NOBODY, dtype=np.int64)
    place[rows] = np.arange(len(rows))
    index, names = numbered(found.adapter, rows, wanted.base)
    think_s = np.zeros(count) if found.think_s is None else found.think_s
    table = request_table(
        seconds, found.input_tokens[rows], found.output_tokens[rows], adapter=index, after=place[after[rows]],
        think_s=np.where(after[rows] == NOBODY, 0.0, think_s[rows]),
        prefixes=prefixes_of(found.chains, rows) if found.chains is not None and wanted.prefixes else None,
    )  # fmt: skip
    return Trace(
        table=table, adapters=names, name=path.stem, notes=tuple(notes), concurrency=found.concurrency
    )  # fmt: skip


def _past(after: Ints, runs: np.ndarray[Any, Any]) -> Ints:
    """The predecessor of each row after rows that do not run are skipped; a predecessor has a smaller index."""
    found = after.copy()
    for row in np.flatnonzero(after != NOBODY):
        leader = found[row]
        found[row] = leader if leader == NOBODY or runs[leader] else found[leader]
    return found


def _chosen(
    seconds: Floats, after: Ints, runs: np.ndarray[Any, Any], wanted: Wanted, notes: list[str]
) -> tuple[Ints, Floats]:
    """The selected rows in order of sending, with conversations kept together, and their times in the window."""
    begins = seconds.copy()
    for row in np.flatnonzero(after != NOBODY):
        begins[row] = begins[after[row]]
    orphans = np.isnan(begins)
    begins[orphans] = np.nanmin(begins) if not orphans.all() else 0.0
    own = np.where((after == NOBODY), begins, np.nan)
    times = own[~np.isnan(own)]
    if (np.diff(times) < 0).any():
        notes.append("requests are not in the order of their times in the file and were sorted")
    order = np.argsort(begins, kind="stable")
    origin = begins.min() if len(begins) else 0.0
    offset = begins - origin - wanted.start_s
    rows = order[(runs & (offset >= 0) & (offset < wanted.seconds))[order]]
    rows = rows[: wanted.requests] if wanted.requests is not None else rows
    start = offset[rows].min() if len(rows) and wanted.start_s == 0.0 else 0.0
    return rows.astype(np.int64), np.where(after[rows] == NOBODY, offset[rows] - start, np.nan)


def _cut_text(wanted: Wanted, count: int) -> str:
    window = wanted.start_s > 0.0 or wanted.seconds < float("inf")
    end = "" if isinf(wanted.seconds) else f" to {amount_text(wanted.start_s + wanted.seconds)} s"
    return f" from {amount_text(wanted.start_s)} s{end}, of {amount_text(count)} in all" if window and count else ""


def prefixes_of(chains: list[Chain], rows: Ints) -> Prefixes | None:
    """The chains of some rows as columns; None if no prompts share a segment."""
    kept = [chains[row] for row in rows.tolist()]
    lengths = np.array([len(segments) for segments, _ in kept], dtype=np.int64)
    flat = np.array([part for segments, _ in kept for part in segments], dtype=np.int64)
    if len(np.unique(flat)) == len(flat):
        return None
    end = np.array([tokens for _, ends in kept for tokens in ends], dtype=np.int64)
    return Prefixes(start=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64), segment=flat, end=end)
