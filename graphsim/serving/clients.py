"""When clients send requests, when the scheduler receives them, and when clients give up."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterator
from math import inf

import numpy as np

from graphsim.serving.arrivals import Arrivals
from graphsim.serving.front import Front
from graphsim.serving.requests import Request, RequestMaker
from graphsim.serving.rows import plain
from graphsim.serving.run_log import REFUSED, STATUSES, RunLog
from graphsim.traffic.client import Client
from graphsim.traffic.table import NOBODY, RequestTable

ROWS_AT_ONCE = 8192
NEVER = (inf, -1)


class Connections:
    """A maximum of requests in flight; a request without a connection waits for the next one to end, in order."""

    def __init__(self, count: float) -> None:
        self._free = count
        self._ends: list[float] = []
        self._waiting: deque[int] = deque()

    def take(self, row: int, now: float, *, waits: bool) -> float | None:
        """When a request that arrives now is sent; None if it waits for the end of another one that is not known yet.

        A request that does not wait and finds no connection is not sent, at inf.
        """
        while self._ends and self._ends[0] <= now:
            heapq.heappop(self._ends)
            self._free += 1
        if self._free >= 1:
            self._free -= 1
            return now
        if not waits:
            return inf
        if self._ends:
            return heapq.heappop(self._ends)
        self._waiting.append(row)
        return None

    def free(self, at: float) -> int | None:
        """A connection is released at that time; returns the request that is sent over it immediately."""
        if self._waiting:
            return self._waiting.popleft()
        heapq.heappush(self._ends, at)
        return None


class Clients(Arrivals):
    """All clients of a server. next_s: when the scheduler may next receive a request, or a client an answer.

    listen: whether the end of a request affects when another is sent
    in_order: whether requests that do not follow another one are sent independently of others
    """

    def __init__(
        self,
        table: RequestTable,
        client: Client,
        front: Front,
        concurrency: int | None,
        maker: RequestMaker,
        log: RunLog,
    ) -> None:
        super().__init__(client.timeout_s)
        self._table, self._maker, self._log = table, maker, log
        self._arrival_s = plain(table.arrival_s)
        self._sent_s, self._received_s = plain(log.sent_s), plain(log.received_s)
        self._fixed_s, self._token_s = client.send_s + front.request_s, front.token_s
        self.reply_s = front.reply_s + client.reply_s
        self._sessions = concurrency is not None
        most = client.connections if concurrency is None else min(client.connections, concurrency)
        self._refuses = client.refuses and concurrency is None
        self._connections = Connections(most) if most < inf else None
        self._followers = _followers(table)
        self.in_order = self._connections is None
        self.listen = self._connections is not None or bool(self._followers)
        self._open = np.ones(len(table), dtype=np.int64) if self._sessions else None
        self._root = _roots(table) if self._sessions else None
        self._planned = self._plan()
        self._next_planned = next(self._planned, NEVER)
        self._later: list[tuple[float, int]] = []  # to be sent then, if connections or answers decide
        # on their way to the scheduler, with the times at which they were sent
        self._coming: list[tuple[float, int, float]] = []
        self.refused = 0
        self.next_s = 0.0
        self._look_ahead()

    def _plan(self) -> Iterator[tuple[float, int]]:
        """Rows that do not follow another row, by the time of sending or, if that is fixed, of receipt."""
        table = self._table
        sent = np.where(np.isnan(table.arrival_s), 0.0, table.arrival_s)
        alone = np.flatnonzero(table.after == NOBODY)
        rows = alone[np.argsort(sent[alone], kind="stable")]
        at = sent[rows]
        if self._connections is None:  # a front end keeps their order, however long the prompts are
            at = np.maximum.accumulate(at + self._fixed_s + self._token_s * table.input_tokens[rows])
        for first in range(0, len(rows), ROWS_AT_ONCE):
            part = slice(first, first + ROWS_AT_ONCE)
            yield from zip(at[part].tolist(), rows[part].tolist(), strict=True)

    def _way_s(self, row: int) -> float:
        return self._fixed_s + self._token_s * int(self._table.input_tokens[row])

    def _look_ahead(self) -> None:
        found = self._next_planned[0]
        if self._later and self._later[0][0] < found:
            found = self._later[0][0]
        if self._coming and self._coming[0][0] < found:
            found = self._coming[0][0]
        self.next_s = found

    def receive(self, until: float) -> list[Request]:
        """Requests that the scheduler receives up to then, in order."""
        found: list[Request] = []
        while self.next_s <= until:
            if self._coming and self._coming[0][0] == self.next_s:
                received, row, sent = heapq.heappop(self._coming)
                found.append(self._received(row, sent, received))
            elif self._next_planned[0] == self.next_s:
                at, row = self._next_planned
                self._next_planned = next(self._planned, NEVER)
                if self._connections is None:
                    sent = self._arrival_s[row]
                    found.append(self._received(row, sent if sent == sent else 0.0, at))
                else:
                    self._leaves(row, at)
            else:
                at, row = heapq.heappop(self._later)
                self._leaves(row, at)
            if self._coming or self._later:
                self._look_ahead()
            else:
                self.next_s = self._next_planned[0]
        return found

    def _leaves(self, row: int, now: float) -> None:
        """A client wants to send a request now."""
        sent: float | None = now
        if self._connections is not None and not (self._sessions and self._table.after[row] != NOBODY):
            sent = self._connections.take(row, now, waits=not self._refuses)
        if sent == inf:
            self._log.status[row] = STATUSES.index(REFUSED)
            self.refused += 1
            self.ended(row, now, answered=False, holds=False)
        elif sent is not None:
            heapq.heappush(self._coming, (sent + self._way_s(row), row, sent))

    def _received(self, row: int, sent: float, received: float) -> Request:
        request = self._maker.one(row, sent)
        self._sent_s[row] = sent
        self._received_s[row] = received
        if self.expires:
            self.waits_for(request)
        return request

    def ended(self, row: int, at: float, *, answered: bool, holds: bool = True) -> None:
        """A request's answer is complete at its client, or the client has given it up.

        holds: whether it had a connection
        """
        if not self.listen:
            return
        self._passed_on(row, at, answered, holds)
        self._look_ahead()

    def _passed_on(self, row: int, at: float, answered: bool, holds: bool) -> None:
        followers = self._followers.get(row, ())
        if answered:
            for follower in followers:
                heapq.heappush(self._later, (at + float(self._table.think_s[follower]), follower))
        else:
            self._give_up(followers)
        if self._connections is None or not holds:
            return
        if self._open is not None and self._root is not None:
            root = self._root[row]
            self._open[root] += (len(followers) if answered else 0) - 1
            if self._open[root]:
                return
        following = self._connections.free(at)
        if following is not None:
            heapq.heappush(self._coming, (at + self._way_s(following), following, at))

    def _give_up(self, rows: tuple[int, ...]) -> None:
        """Drop the requests that would have followed an answer that did not come."""
        waiting = list(rows)
        while waiting:
            row = waiting.pop()
            self._log.status[row] = STATUSES.index(REFUSED)
            self.refused += 1
            waiting.extend(self._followers.get(row, ()))


def _followers(table: RequestTable) -> dict[int, tuple[int, ...]]:
    """Rows that wait for the answer of each row."""
    found: dict[int, tuple[int, ...]] = {}
    for row in np.flatnonzero(table.after != NOBODY).tolist():
        after = int(table.after[row])
        found[after] = (*found.get(after, ()), row)
    return found


def _roots(table: RequestTable) -> list[int]:
    """The first row of the session that each row belongs to."""
    roots: list[int] = []
    for row, after in enumerate(table.after.tolist()):
        roots.append(row if after == NOBODY else roots[after])
    return roots
