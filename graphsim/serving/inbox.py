"""Requests submitted to an engine while it runs."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from math import inf

from graphsim.serving.arrivals import Arrivals
from graphsim.serving.requests import Request
from graphsim.serving.rows import plain
from graphsim.serving.run_log import RunLog

Ended = Callable[[int, float, bool], None]
"""Called for each end: the request's row, when its client learns of it, and whether it was answered."""


class Inbox(Arrivals):
    """Requests on their way to one engine. The sender of a request is notified of how it ends.

    coming: a heap of (time of receipt, order among equal times, request)
    """

    def __init__(self, log: RunLog, tell: Ended, *, timeout_s: float = inf, reply_s: float = 0.0) -> None:
        super().__init__(timeout_s)
        self.next_s, self.reply_s, self.listen = inf, reply_s, True
        self._tell = tell
        self.coming: list[tuple[float, int, Request]] = []
        self._sent_s, self._received_s = plain(log.sent_s), plain(log.received_s)

    def __len__(self) -> int:
        return len(self.coming)

    def put(self, request: Request, received_s: float, place: int) -> bool:
        """Add a request; returns whether it is the earliest.

        place: its order among those that arrive together
        """
        heapq.heappush(self.coming, (received_s, place, request))
        self._sent_s[request.row] = request.sent_s
        if received_s < self.next_s:
            self.next_s = received_s
            return True
        return False

    def left(self) -> list[int]:
        """Rows of requests still on their way."""
        return [request.row for _, _, request in self.coming]

    def receive(self, until: float) -> list[Request]:
        """Requests that the scheduler receives up to then, in order."""
        found: list[Request] = []
        coming = self.coming
        while coming and coming[0][0] <= until:
            received, _, request = heapq.heappop(coming)
            self._received_s[request.row] = received
            if self.expires:
                self.waits_for(request)
            found.append(request)
        self.next_s = coming[0][0] if coming else inf
        return found

    def ended(self, row: int, at: float, *, answered: bool) -> None:
        """Reported to its sender."""
        self._tell(row, at, answered)
