"""The view of an engine's loop on its senders: when the next request comes, and which ones are given up."""

from __future__ import annotations

import heapq
from math import inf

from graphsim.serving.requests import Request


class Arrivals:
    """Requests on their way to an engine, and how long their clients wait.

    next_s: when the scheduler may next receive a request
    reply_s: seconds from the engine's token to the client's timestamp
    expiring: requests with the times at which their clients give up; expires: whether any client does
    listen: whether anything depends on when a request ends
    """

    next_s: float
    reply_s: float
    listen: bool

    def __init__(self, timeout_s: float) -> None:
        self.timeout_s = timeout_s
        self.expires = timeout_s < inf
        self.expiring: list[tuple[float, int, Request]] = []

    def receive(self, until: float) -> list[Request]:
        """Requests that the scheduler receives up to then, in order."""
        raise NotImplementedError

    def ended(self, row: int, at: float, *, answered: bool) -> None:
        """A request's answer is complete at its client, or the client has given it up."""
        raise NotImplementedError

    def waits_for(self, request: Request) -> None:
        """Register a request whose client waits for it from the time of sending."""
        heapq.heappush(self.expiring, (request.sent_s + self.timeout_s, request.row, request))

    def next_expiry(self) -> float:
        """When the next client gives up its request."""
        expiring = self.expiring
        while expiring and expiring[0][2].over:
            heapq.heappop(expiring)
        return expiring[0][0] if expiring else inf

    def pop_expiring(self) -> tuple[float, int, Request]:
        """The request that is given up first, if there is one."""
        self.next_expiry()
        return heapq.heappop(self.expiring)
