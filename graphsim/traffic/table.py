"""Requests as columns: the form in which traffic reaches a simulated server."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

Floats = np.ndarray[Any, np.dtype[np.float64]]
Ints = np.ndarray[Any, np.dtype[np.int64]]

BASE = -1
"""The adapter of requests that have none."""

NOBODY = -1
"""What a request follows that follows no other."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Prefixes:
    """Which parts of prompts are the same text, as chains of segments; what lies behind the last one is a prompt's own.

    start: where each request's segments begin in the two other columns; one entry more than there are requests
    segment: what the text is: two requests share a segment where all segments before it are the same, too
    end: tokens of the prompt up to the end of the segment; of two segments alike, one may go on further

    Where the last segment ends with the prompt, the answer continues with it: a chat's next turn repeats what was said.
    """

    start: Ints
    segment: Ints
    end: Ints

    def of(self, request: int) -> tuple[list[int], list[int]]:
        """The segments of a request and where they end."""
        here = slice(int(self.start[request]), int(self.start[request + 1]))
        return self.segment[here].tolist(), self.end[here].tolist()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RequestTable:
    """One row per request, in the order in which clients send them.

    arrival_s: when it is sent, seconds from the start; nan where it follows another request (`after`) or, in a closed
        loop, where it is sent when another is answered
    input_tokens, output_tokens: of its whole prompt, shared parts included, and of its answer
    adapter: which one, counted from 0; BASE for none
    priority: lower first; group: which class of requests it belongs to, counted from 0
    after: the row whose answer it waits for, NOBODY for none; think_s: the pause after that answer
    prefixes: which prompts begin alike; None where none do
    """

    arrival_s: Floats
    input_tokens: Ints
    output_tokens: Ints
    adapter: Ints
    priority: Ints
    group: Ints
    after: Ints
    think_s: Floats
    prefixes: Prefixes | None = None

    def __len__(self) -> int:
        return len(self.arrival_s)


def request_table(arrival_s: Any, input_tokens: Any, output_tokens: Any, **columns: Any) -> RequestTable:
    """A table of those columns that are given; the others say nothing (no adapter, no priority, no predecessor)."""
    count = len(np.atleast_1d(arrival_s))
    whole = {"adapter": BASE, "priority": 0, "group": 0, "after": NOBODY}
    found = {name: np.full(count, absent, dtype=np.int64) for name, absent in whole.items()}
    found |= {name: np.asarray(columns[name], dtype=np.int64) for name in whole if name in columns}
    return RequestTable(
        arrival_s=np.asarray(arrival_s, dtype=float), input_tokens=np.asarray(input_tokens, dtype=np.int64),
        output_tokens=np.asarray(output_tokens, dtype=np.int64), think_s=np.asarray(
            columns.get("think_s", np.zeros(count)), dtype=float
        ), prefixes=columns.get("prefixes"), **found,
    )  # fmt: skip
