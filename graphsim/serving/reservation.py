"""What of the cache an admission has to leave to those that run."""

from __future__ import annotations

import heapq

from graphsim.serving.requests import Request

CLIPPED_TOKENS = 4096
"""Of an answer yet to come, tokens that an estimate counts at most (SGLang's CLIP_MAX_NEW_TOKENS, its default)."""
RETRACT_STEPS = 20
"""Steps that every request left after a retraction is expected to go on for (SGLANG_RETRACT_DECODE_STEPS)."""


class NewTokenRatio:
    """The share of tokens yet to come that is set aside: it falls with each decode step (SGLang)."""

    def __init__(self, initial: float, decay: float, least: float) -> None:
        self._initial, self._decay, self._least = initial, decay, least
        self._from, self._since = initial, 0

    def at(self, steps: int) -> float:
        """After so many decode steps in all."""
        return max(self._least, self._from - self._decay * max(0, steps - self._since))

    def restart(self, steps: int) -> None:
        """Nothing is left to run."""
        self._from, self._since = self._initial, steps

    def retracted(self, steps: int, generated: int, outputs: int, requests: int) -> None:
        """Some were taken out before the next step; what those left have generated says the new share."""
        self._from = min(1.0, (generated + RETRACT_STEPS * requests) / (outputs + 1))
        self._since = steps + 1


class TokensToCome:
    """The tokens that generating requests still get, each clipped."""

    def __init__(self) -> None:
        self._ends, self._count = 0, 0  # of those that are not clipped
        self._clipped: dict[Request, None] = {}
        self._first: list[tuple[int, int, Request]] = []

    def add(self, request: Request, steps: int) -> None:
        """One that ends at the step `request.end`."""
        if request.end - steps > CLIPPED_TOKENS:
            self._clipped[request] = None
            heapq.heappush(self._first, (request.end, request.order, request))
        else:
            self._ends += request.end
            self._count += 1

    def remove(self, request: Request) -> None:
        """One that was added, with its end as it was then."""
        if request in self._clipped:
            del self._clipped[request]
        else:
            self._ends -= request.end
            self._count -= 1

    def total(self, steps: int) -> int:
        """After so many decode steps."""
        while self._first and self._first[0][0] - steps <= CLIPPED_TOKENS:
            end, order, request = heapq.heappop(self._first)
            if request in self._clipped and (request.end, request.order) == (end, order):
                del self._clipped[request]
                self._ends += end
                self._count += 1
        return self._ends - self._count * steps + CLIPPED_TOKENS * len(self._clipped)
