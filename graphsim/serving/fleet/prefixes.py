"""The router's record of the prompts that it sent to each replica."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from graphsim.serving.requests import Request

Key = tuple[int, Any]


class SentPrefixes:
    """Prompts by replica, as chains of their segments; the least recently used are dropped when a replica's cache is
    full.

    An approximation from the sent prompts, as in SGLang's router and llm-d's prefix scorer: the router does not know
    what a replica has evicted.
    """

    def __init__(self, most_blocks: int) -> None:
        """most_blocks: of one replica, that are remembered."""
        self._most = max(most_blocks, 1)
        self._of: dict[int, OrderedDict[Key, tuple[int, int]]] = {}  # where each begins and ends
        self._blocks: dict[int, int] = {}

    def blocks(self, replica: int) -> int:
        """Number of blocks recorded for a replica."""
        return self._blocks.get(replica, 0)

    def matched(self, request: Request, replica: int) -> int:
        """Leading blocks of a prompt that a replica was sent before."""
        known = self._of.get(replica)
        if not known:
            return 0
        found = 0
        for key, _, end in _chain(request):
            last = known.get(key, (0, 0))[1]
            found = max(found, min(end, last))
            if last < end:
                break
        return found

    def add(self, request: Request, replica: int) -> None:
        """Record a prompt sent to a replica; its end is forgotten before its beginning."""
        known = self._of.setdefault(replica, OrderedDict())
        blocks = self._blocks.get(replica, 0)
        for key, begin, end in reversed(_chain(request)):
            last = known.pop(key, (begin, begin))[1]
            known[key] = begin, max(last, end)
            blocks += max(end - last, 0)
        while blocks > self._most and known:
            begin, last = known.popitem(last=False)[1]
            blocks -= last - begin
        self._blocks[replica] = blocks


def _chain(request: Request) -> list[tuple[Key, int, int]]:
    """Each segment under all that lie before it: its key, and the blocks at which it begins and ends."""
    found: list[tuple[Key, int, int]] = []
    key: Any = request.adapter
    begin = 0
    for segment in request.segments:
        key = hash((key, segment.first, segment.name))
        found.append(((request.adapter, key), begin, segment.end))
        begin = segment.end
    return found
