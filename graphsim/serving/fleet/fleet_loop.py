"""Several engines on one clock: arrivals are routed, completions reported, and no engine waits for another's steps."""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import inf

import numpy as np

from graphsim.errors import ConfigError
from graphsim.serving.clients import Clients
from graphsim.serving.driven_engine import DrivenEngine
from graphsim.serving.engine import NOTHING
from graphsim.serving.fleet.router import FleetFacts, Router
from graphsim.serving.fleet.scaler import Scaler
from graphsim.serving.fleet.views import LiveView, ScrapedView, View
from graphsim.serving.front import Front
from graphsim.serving.loop import PROGRESS_S, Progress
from graphsim.serving.requests import Request, RequestMaker
from graphsim.serving.rows import Rows
from graphsim.serving.run_log import Ints, RunLog, empty_log
from graphsim.traffic.client import Client
from graphsim.traffic.table import NOBODY, RequestTable
from graphsim.units import short

NOWHERE = -1
"""Replica number of a request that never reached one."""
FOLLOWING = 2**40
"""Places of requests whose front end keeps their order, behind the rows of those that come at the same time."""

MakeEngine = Callable[[RunLog, Client, Callable[[int, float, bool], None]], DrivenEngine]
"""Creates an engine with its own log, the client, and a callback for the ends of requests."""


@dataclass(slots=True, eq=False)
class Member:
    """A replica.

    due: time of its next event
    received_s: when its front end last finished a request
    """

    driven: DrivenEngine
    live: LiveView
    view: LiveView | ScrapedView
    due: float = inf
    received_s: float = 0.0


class FleetLoop:
    """Runs until all requests are answered, or until the client's cut-off.

    log: of all requests, without steps; replica: of each request, NOWHERE if it never reached one
    members: replicas, including those that scaling added
    """

    def __init__(
        self, table: RequestTable, make: MakeEngine, replicas: int, router: Router, *, client: Client, front: Front,
        concurrency: int | None, block_tokens: int, facts: FleetFacts, view_age_s: float = 0.0,
        scaler: Scaler | None = None,
    ) -> None:  # fmt: skip
        self.log = empty_log(len(table))
        self.replica: Ints = np.full(len(table), NOWHERE, dtype=np.int64)
        self.clock = facts.clock
        self._table, self._make, self._router, self._front = table, make, router, front
        self._client, self._age_s, self._scaler = client, view_age_s, scaler
        self._age = 0
        maker = RequestMaker(table, block_tokens)
        # engines handle clients that give up; here only the times of sending matter
        patient = replace(client, timeout_s=inf)
        self._clients = Clients(table, patient, Front(), concurrency, maker, self.log)
        self._ordered = self._clients.in_order
        self._fixed_s, self._token_s = client.send_s + front.request_s, front.token_s
        self.members: list[Member] = []
        self._views: list[View] = []
        self._open: frozenset[int] = frozenset()
        self._heap: list[tuple[float, int]] = []
        self._routed = 0
        self._replica = self.replica.data
        for _ in range(replicas):
            self.add_member()
        self._open_to(range(replicas))
        prepare = getattr(router, "prepare", None)
        if callable(prepare):
            prepare(facts)

    def add_member(self) -> int:
        """Add a replica, which takes no requests yet; returns its number."""
        number = len(self.members)
        log = replace(self.log, runs=Rows(), gaps=Rows(), loads=[], switches=[], tier_loads=[], evicted=[])

        def tell(row: int, at_s: float, answered: bool) -> None:
            self._ended(number, row, at_s, answered)

        driven = self._make(log, self._client, tell)
        live = LiveView(number, driven, self.clock)
        view = live if not self._age_s else ScrapedView(number)
        self.members.append(Member(driven, live, view))
        return number

    def _open_to(self, numbers: Sequence[int]) -> None:
        """Route requests only to these replicas from now on."""
        self._views, self._open = [self.members[number].view for number in numbers], frozenset(numbers)

    def run(self, progress: Progress | None = None) -> None:
        """Run everything to its end."""
        shown = time.perf_counter()
        try:
            while self._one():
                if progress is not None and time.perf_counter() - shown > PROGRESS_S:
                    ended = sum(member.driven.engine.endings.count for member in self.members)
                    progress(self.clock.now, ended + self._clients.refused)
                    shown = time.perf_counter()
        except KeyboardInterrupt:
            self.log.interrupted = True
        self._close()

    def _one(self) -> bool:
        """Process the next event; False if there is none."""
        heap, members, arrival = self._heap, self.members, self._clients.next_s
        while heap and members[heap[0][1]].due != heap[0][0]:
            heapq.heappop(heap)
        engine_s = heap[0][0] if heap else inf
        if arrival >= self._client.cutoff_s:
            arrival = inf
        following = arrival if arrival <= engine_s else engine_s
        if following == inf:
            return False
        if self._scaler is not None and self._scaler.next_s <= following:
            self._scale()
            return True
        if self._age_s and following >= self._age * self._age_s:
            self._scrape(following)
        if arrival <= engine_s:
            self._route_until(arrival)
        else:
            self._drive(members[heapq.heappop(heap)[1]])
        return True

    def _drive(self, member: Member) -> None:
        """End a replica's current event, or begin its next one."""
        engine = member.driven.engine
        if engine.under_way != NOTHING:
            self.clock.now = max(self.clock.now, engine.until)
            engine.finish()
            if self._clients.next_s <= engine.now:  # requests that have arrived are routed first
                self._wake(member, engine.now)
                return
        self._wake(member, engine.begin())

    def _wake(self, member: Member, at_s: float) -> None:
        member.due = at_s
        if at_s < inf:
            heapq.heappush(self._heap, (at_s, member.live.number))

    def _route_until(self, at_s: float) -> None:
        """Route the requests that reach the router up to then."""
        self.clock.now = max(self.clock.now, at_s)
        for request in self._clients.receive(at_s):
            number = self._chosen(request)
            member = self.members[number]
            member.view.open += 1
            member.view.sent += 1
            self._replica[request.row] = number
            self._hand_over(request, member)

    def _chosen(self, request: Request) -> int:
        number = self._router.route(request, self._views)
        if isinstance(number, int | np.integer) and number in self._open:
            return int(number)
        raise ConfigError(
            f"serve: the router sent a request to replica {short(number)}; expected one of "
            f"{', '.join(str(view.number) for view in self._views)}"
        )

    def _hand_over(self, request: Request, member: Member) -> None:
        """Through the replica's front end, which keeps the order of otherwise equal requests."""
        way_s = self._token_s * request.inputs
        if self._ordered and self._table.after[request.row] == NOBODY:
            received = max(request.sent_s + self._fixed_s + way_s, member.received_s)
            member.received_s = received
            self._routed += 1
            place = FOLLOWING + self._routed
        else:
            received, place = request.sent_s + (self._fixed_s + way_s), request.row
        driven, engine = member.driven, member.driven.engine
        driven.put(request, received, place)
        if engine.under_way != NOTHING:
            if engine.until != member.due:
                self._wake(member, engine.until)
        elif member.due == inf:
            self._wake(member, engine.now)

    def _ended(self, number: int, row: int, at_s: float, answered: bool) -> None:
        member = self.members[number]
        member.view.open -= 1
        if self._clients.listen:
            self._clients.ended(row, at_s, answered=answered)
            if not answered and self._clients.next_s <= member.driven.now:  # at once, as the engine looks meanwhile
                self._route_until(member.driven.now)

    def _scrape(self, at_s: float) -> None:
        """Update views to the state at the last scrape, since which nothing has happened."""
        self._age = int(at_s / self._age_s) + 1
        self.clock.now = max(self.clock.now, (self._age - 1) * self._age_s)
        for member in self.members:
            if isinstance(member.view, ScrapedView):
                member.view.scrape(member.live)

    def _scale(self) -> None:
        scaler = self._scaler
        if scaler is None:
            return
        self.clock.now = max(self.clock.now, scaler.next_s)
        loads = [member.live.load for member in self.members]
        while scaler.decide(loads):
            loads.append(0)
            self.add_member()
        self._open_to(scaler.serving)

    def _close(self) -> None:
        """Complete the logs; requests that never reached a scheduler count as never sent, as with one server."""
        cutoff_s = self._client.cutoff_s
        self.log.end_s = min(max((member.driven.now for member in self.members), default=0.0), cutoff_s)
        for member in self.members:
            for row in member.driven.close_inbox():
                self.log.sent_s[row] = self.log.received_s[row] = np.nan
                self.replica[row] = NOWHERE
            own = member.driven.close()
            for name in ("gaps", "loads", "switches", "tier_loads", "evicted"):
                getattr(self.log, name).extend(getattr(own, name))
