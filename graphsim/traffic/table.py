"""Requests as columns, the input of a simulated server."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

Floats = np.ndarray[Any, np.dtype[np.float64]]
Ints = np.ndarray[Any, np.dtype[np.int64]]

BASE = -1
"""The adapter index of requests without an adapter."""

NOBODY = -1
"""The value of `after` for requests that follow no other."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Prefixes:
    """Common text of prompts, as chains of segments; the text after the last segment is not shared.

    start: index of each request's first segment in the other columns; one more entry than there are requests
    segment: id of the text; two requests share a segment if all segments before it are also equal
    end: tokens of the prompt up to the end of the segment; of two equal segments, one may be longer

    If the last segment ends with the prompt, the answer continues it: the next turn of a chat repeats it.
    """

    start: Ints
    segment: Ints
    end: Ints

    def of(self, request: int) -> tuple[list[int], list[int]]:
        """The segments of a request and their ends in tokens."""
        here = slice(int(self.start[request]), int(self.start[request + 1]))
        return self.segment[here].tolist(), self.end[here].tolist()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RequestTable:
    """One row per request, in the order in which clients send them.

    arrival_s: time of sending in seconds from the start; nan if it follows another request (`after`) or, in a closed
        loop, the answer to any other one
    input_tokens, output_tokens: tokens of the whole prompt, including shared parts, and of the answer
    adapter: index of the adapter; BASE for none
    priority: requests with a lower number go first
    group: index of the class of requests
    after: row whose answer it waits for; NOBODY for none
    think_s: pause in seconds after that answer
    prefixes: common beginnings of prompts; None if there are none
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
    """A table with the given columns; the others have defaults (no adapter, equal priority, no predecessor)."""
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
