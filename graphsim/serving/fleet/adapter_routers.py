"""Routers that consider the adapter of a request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from graphsim.brief import call_text
from graphsim.errors import ConfigError
from graphsim.serving.fleet.router import FleetFacts, KnowsNothing, least_loaded, ranked
from graphsim.serving.fleet.views import View
from graphsim.serving.requests import Request
from graphsim.traffic.table import BASE
from graphsim.units import as_number, short


class AdapterAffinity:
    """A replica that has or is loading the adapter, unless it is overloaded; else the least loaded one.

    As Ray Serve does it, whose replicas are overloaded at `max_ongoing_requests`.
    most: requests at a replica from which it counts as overloaded, by default the engine's max_num_seqs
    """

    def __init__(self, most: int | None = None) -> None:
        self._given = most
        self._most = most or 0

    def __repr__(self) -> str:
        return call_text(self, most=self._given)

    def prepare(self, facts: FleetFacts) -> None:
        """Use the engine's limit if none was given."""
        self._most = self._given or facts.max_num_seqs

    def route(self, request: Request, views: Sequence[View]) -> int:
        """The least loaded of the replicas that have it."""
        adapter = request.adapter
        if adapter == BASE:
            return least_loaded(views).number
        having = [
            view
            for view in views
            if (adapter in view.resident or adapter in view.active or adapter in view.queued) and view.load < self._most
        ]
        return least_loaded(having or views).number


class Rendezvous(KnowsNothing):
    """Each adapter on the replicas that rendezvous hashing gives it; requests without one to the least loaded.

    copies: replicas of each adapter, among which the least loaded takes the request
    """

    def __init__(self, copies: int = 1) -> None:
        number = as_number(copies)
        if not isinstance(number, float) or number < 1 or number != int(number):
            raise ConfigError(f"router: copies = {short(copies)} is not allowed; expected a whole number from 1")
        self._copies = int(number)
        self._homes: dict[tuple[int, tuple[int, ...]], frozenset[int]] = {}

    def __repr__(self) -> str:
        return call_text(self, copies=self._copies)

    def route(self, request: Request, views: Sequence[View]) -> int:
        """One of the adapter's replicas."""
        if request.adapter == BASE:
            return least_loaded(views).number
        if self._copies == 1 and len(views) == 1:
            return views[0].number
        numbers = tuple(view.number for view in views)
        key = (request.adapter, numbers)
        home = self._homes.get(key)
        if home is None:
            home = self._homes[key] = frozenset(ranked(f"adapter {request.adapter}", numbers)[: self._copies])
        return least_loaded([view for view in views if view.number in home]).number


class StaticMap:
    """A fixed map of adapters to replicas; of several, the least loaded takes the request.

    homes: {adapter: replica, or a list of replicas}, both counted from 0; adapters that are not named are assigned in
        turn (number modulo replicas), and requests without one go to the least loaded
    copies: instead of homes, {adapter: number of replicas}, assigned in turn, the largest numbers first
    """

    def __init__(
        self, homes: Mapping[int, int | Sequence[int]] | None = None, copies: Mapping[int, int] | None = None
    ) -> None:
        if homes is not None and copies is not None:
            raise ConfigError("router: static-map takes homes or copies, not both")
        self._homes = {int(adapter): _numbers(adapter, home) for adapter, home in (homes or {}).items()}
        self._copies = {int(adapter): _count(adapter, count) for adapter, count in (copies or {}).items()}

    def __repr__(self) -> str:
        return call_text(self, homes=self._homes, copies=self._copies)

    def prepare(self, facts: FleetFacts) -> None:
        """Assign the adapters. Raises ConfigError for a replica or an adapter that does not exist."""
        for adapter, home in self._homes.items():
            for number in home:
                if not 0 <= number < facts.replicas:
                    raise ConfigError(
                        f"router: adapter {adapter} is mapped to replica {number}; there are {facts.replicas}, counted "
                        "from 0"
                    )
        unknown = next((a for a in (*self._homes, *self._copies) if not 0 <= a < facts.adapters), None)
        if unknown is not None:
            raise ConfigError(f"router: adapter {unknown} does not exist; there are {facts.adapters}, counted from 0")
        place = 0
        for adapter in sorted(self._copies, key=lambda adapter: (-self._copies[adapter], adapter)):
            count = min(self._copies[adapter], facts.replicas)
            self._homes[adapter] = frozenset((place + i) % facts.replicas for i in range(count))
            place += count

    def route(self, request: Request, views: Sequence[View]) -> int:
        """One of the adapter's replicas."""
        if request.adapter == BASE:
            return least_loaded(views).number
        home = self._homes.get(request.adapter)
        here = [view for view in views if view.number in home] if home is not None else []
        return least_loaded(here).number if here else views[request.adapter % len(views)].number


def _numbers(adapter: Any, home: int | Sequence[int]) -> frozenset[int]:
    listed = [home] if isinstance(home, int) else list(home) if isinstance(home, list | tuple | set | frozenset) else []
    if not listed or not all(isinstance(number, int) for number in listed):
        raise ConfigError(
            f"router: homes of adapter {adapter} = {short(home)} is not allowed; expected a replica's number, or a "
            "list of them"
        )
    return frozenset(listed)


def _count(adapter: Any, count: Any) -> int:
    if not isinstance(count, int) or isinstance(count, bool) or count < 1:
        raise ConfigError(
            f"router: copies of adapter {adapter} = {short(count)} is not allowed; expected a whole number from 1"
        )
    return count
