"""The part of the cache that an admission must leave to running requests."""

from __future__ import annotations

import heapq

from graphsim.serving.requests import Request

CLIPPED_TOKENS = 4096
"""Most tokens of an answer to come that an estimate counts (SGLang's CLIP_MAX_NEW_TOKENS, its default)."""
RETRACT_STEPS = 20
"""Steps for which every request remaining after a retraction is expected to continue (SGLANG_RETRACT_DECODE_STEPS)."""


class NewTokenRatio:
    """The reserved share of tokens to come, which falls with each decode step (SGLang)."""

    def __init__(self, initial: float, decay: float, least: float) -> None:
        self._initial, self._decay, self._least = initial, decay, least
        self._from, self._since = initial, 0

    def at(self, steps: int) -> float:
        """The share after this number of decode steps."""
        return max(self._least, self._from - self._decay * max(0, steps - self._since))

    def restart(self, steps: int) -> None:
        """Reset when nothing is left to run."""
        self._from, self._since = self._initial, steps

    def retracted(self, steps: int, generated: int, outputs: int, requests: int) -> None:
        """Requests were retracted before the next step; the new share follows from what the remaining ones have
        generated.
        """
        self._from = min(1.0, (generated + RETRACT_STEPS * requests) / (outputs + 1))
        self._since = steps + 1


class RemainingTokens:
    """The remaining tokens of generating requests, each clipped."""

    def __init__(self) -> None:
        self._ends, self._count = 0, 0  # of those that are not clipped
        self._clipped: dict[Request, None] = {}
        self._first: list[tuple[int, int, Request]] = []

    def add(self, request: Request, steps: int) -> None:
        """Add a request that ends at the step `request.end`."""
        if request.end - steps > CLIPPED_TOKENS:
            self._clipped[request] = None
            heapq.heappush(self._first, (request.end, request.order, request))
        else:
            self._ends += request.end
            self._count += 1

    def remove(self, request: Request) -> None:
        """Remove a request, with the end it had when it was added."""
        if request in self._clipped:
            del self._clipped[request]
        else:
            self._ends -= request.end
            self._count -= 1

    def total(self, steps: int) -> int:
        """The estimate after this number of decode steps."""
        while self._first and self._first[0][0] - steps <= CLIPPED_TOKENS:
            end, order, request = heapq.heappop(self._first)
            if request in self._clipped and (request.end, request.order) == (end, order):
                del self._clipped[request]
                self._ends += end
                self._count += 1
        return self._ends - self._count * steps + CLIPPED_TOKENS * len(self._clipped)
