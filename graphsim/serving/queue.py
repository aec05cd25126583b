"""Waiting requests in the order of a policy, with access to the first of given adapters."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from typing import Any

from graphsim.serving.requests import Request

Entry = tuple[Any, int, Request]
"""The policy's key, the order among equal keys, and the request."""

LONGEST_LPM_QUEUE = 128
"""Waiting requests up to which `lpm` looks for prefixes; beyond, it is first come, first served (SGLang)."""

_KEYS: dict[str, Callable[[Request], Any]] = {
    "priority": lambda request: request.priority,
    "lof": lambda request: -request.outputs,
    "sjf": lambda request: request.inputs + request.outputs,
}


class Queue:
    """A queue per adapter; among requests with equal keys, the earlier comes first.

    size: requests in it; tokens: of their prompts and of answers that are to be computed again
    counts: requests of each adapter
    """

    def __init__(self, policy: str) -> None:
        """policy: fcfs, priority, lof (longest output first), sjf (fewest tokens first) or lpm (longest prefix)."""
        self.size = self.tokens = 0
        self.counts: Counter[int] = Counter()
        self._key = _KEYS.get(policy)
        self._lines: dict[int, list[Entry]] = {}
        self._heads: list[tuple[Any, int, int]] = []  # heads of the queues, with the adapter; some are outdated
        self._last = self._front = 0

    def append(self, request: Request) -> None:
        """Insert after all requests of the same order."""
        self._last += 1
        self._put(request, self._last)

    def put_first(self, request: Request) -> None:
        """Insert before all requests of the same order."""
        self._front -= 1
        self._put(request, self._front)

    def _put(self, request: Request, place: int) -> None:
        line = self._lines.get(request.adapter)
        if line is None:
            line = self._lines[request.adapter] = []
        key = 0 if self._key is None else self._key(request)
        entry: Entry = (key, place, request)
        heapq.heappush(line, entry)
        if line[0] is entry:
            heapq.heappush(self._heads, (key, place, request.adapter))
        self.size += 1
        self.counts[request.adapter] += 1
        self.tokens += request.inputs + request.generated

    def head(self) -> Request | None:
        """The first of all."""
        heads = self._heads
        while heads:
            key, place, adapter = heads[0]
            entry = self._first(adapter)
            if entry is not None and entry[1] == place:
                return entry[2]
            heapq.heappop(heads)
        return None

    def head_of(self, adapters: Collection[int]) -> Request | None:
        """The first of those of these adapters."""
        best: Entry | None = None
        lines = self._lines
        for adapter in adapters if len(adapters) < len(lines) else list(lines):
            if adapter in lines and adapter in adapters:
                entry = self._first(adapter)
                if entry is not None and (best is None or entry < best):
                    best = entry
        return best[2] if best is not None else None

    def first_of_each(self, passes: Callable[[Request], bool] | None = None) -> list[Request]:
        """The first of each adapter, or the first that passes, in the queue's order."""
        entries = [self._first(adapter) for adapter in list(self._lines)]
        if passes is not None:
            entries = [entry if entry is None or passes(entry[2]) else self._next(entry, passes) for entry in entries]
        return [entry[2] for entry in sorted(entry for entry in entries if entry is not None)]

    def _next(self, first: Entry, passes: Callable[[Request], bool]) -> Entry | None:
        line = self._lines[first[2].adapter]
        return min((entry for entry in line if not entry[2].over and passes(entry[2])), default=None)

    def _first(self, adapter: int) -> Entry | None:
        line = self._lines.get(adapter)
        if line is None:
            return None
        stale = False
        while line and line[0][2].over:
            heapq.heappop(line)
            stale = True
        if not line:
            del self._lines[adapter]
            return None
        if stale:
            heapq.heappush(self._heads, (line[0][0], line[0][1], adapter))
        return line[0]

    def remove(self, request: Request) -> None:
        """Remove a request that `head` or `head_of` returned."""
        line = self._lines[request.adapter]
        if line[0][2] is request:
            heapq.heappop(line)
        else:
            line.remove(next(entry for entry in line if entry[2] is request))
            heapq.heapify(line)
        if line:
            heapq.heappush(self._heads, (line[0][0], line[0][1], request.adapter))
        else:
            del self._lines[request.adapter]
        self.lose(request)

    def lose(self, request: Request) -> None:
        """A waiting request is over: it no longer counts, and is skipped when its turn comes."""
        self.size -= 1
        self.counts[request.adapter] -= 1
        self.tokens -= request.inputs + request.generated

    def __iter__(self) -> Iterator[Request]:
        """Iterate in arbitrary order."""
        return (entry[2] for line in self._lines.values() for entry in line if not entry[2].over)

    def in_order(self) -> list[Request]:
        """All that wait."""
        entries = [entry for line in self._lines.values() for entry in line if not entry[2].over]
        return [entry[2] for entry in sorted(entries, key=lambda entry: entry[:2])]
