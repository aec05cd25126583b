"""A router that places adapters on replicas by demand and rank, and moves them as demand changes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from graphsim.brief import call_text
from graphsim.errors import ConfigError
from graphsim.serving.fleet.demand import Demand, copies_of, placed
from graphsim.serving.fleet.router import FleetFacts, least_loaded, ranked
from graphsim.serving.fleet.views import View
from graphsim.serving.requests import Request
from graphsim.traffic.table import BASE
from graphsim.units import as_number, short

EVERY_S, MEMORY_S, PATIENCE = 30.0, 120.0, 3
"""Seconds between two placements, seconds in which a request's weight decays, and placements for which an unneeded
copy stays; defaults of a controller that the user may set.
"""
FIRST_PART = 1.0 / 32.0
"""Of the time between two placements: when the second one is due; then the time since the start doubles each time."""


class Placed:
    """Places each adapter on replicas in proportion to its demand, and repeats that periodically.

    Load per adapter is converted to numbers of copies within all slots (largest remainder), and these to replicas by
    rendezvous hashing where slots are free. Among an adapter's replicas, the least loaded takes a request; requests
    without an adapter go to the least loaded of all.

    every_s: seconds between placements, which are more frequent at the start, when little is known
    memory_s: seconds after which a request's weight has fallen to 1/e
    patience: number of placements for which an adapter stays on a replica where it is no longer placed
    ranks: weight of a request of each adapter, by default its rank in the traffic
    """

    def __init__(
        self, every_s: float = EVERY_S, memory_s: float = MEMORY_S, patience: int = PATIENCE,
        ranks: Sequence[float] | None = None,
    ) -> None:  # fmt: skip
        for name, value in (("every_s", every_s), ("memory_s", memory_s)):
            number = as_number(value)
            if not isinstance(number, float) or not 0.0 < number < float("inf"):
                raise ConfigError(f"router: {name} = {short(value)} is not allowed; expected a number above 0")
        self._every_s, self._memory_s, self._patience = float(every_s), float(memory_s), _patience(patience)
        self._ranks = ranks
        self.moves = 0
        self._facts = FleetFacts(replicas=1)
        self._demand = Demand([], self._memory_s)
        self._next_s = 0.0
        self._homes: dict[int, dict[int, int]] = {}  # replicas of each adapter, and placements for which each may stay
        self._numbers: tuple[int, ...] = ()

    def __repr__(self) -> str:
        times = {"every_s": self._every_s, "memory_s": self._memory_s}
        return call_text(self, **times, patience=self._patience, ranks=self._ranks)

    def prepare(self, facts: FleetFacts) -> None:
        """No requests so far. Raises ConfigError where not every adapter has a rank."""
        given = facts.ranks or (1.0,) * facts.adapters if self._ranks is None else self._ranks
        ranks = [float(rank) for rank in given]
        if len(ranks) != facts.adapters:
            raise ConfigError(f"router: {len(ranks)} ranks are given for {facts.adapters} adapters")
        self._facts, self._demand = facts, Demand(ranks, self._memory_s)

    def route(self, request: Request, views: Sequence[View]) -> int:
        """One of the adapter's replicas."""
        adapter = request.adapter
        if adapter == BASE:
            return least_loaded(views).number
        now, numbers = self._facts.clock.now, tuple(view.number for view in views)
        self._demand.add(adapter, now)
        if now >= self._next_s or numbers != self._numbers:
            self._place(now, numbers)
        home = self._homes.get(adapter)
        if home is None:  # a new adapter gets its own place until the next placement
            home = self._homes[adapter] = {ranked(f"adapter {adapter}", numbers)[0]: self._patience}
        here = [view for view in views if home.get(view.number, 0) >= self._patience]
        return least_loaded(here or [view for view in views if view.number in home] or views).number

    def _place(self, now: float, numbers: tuple[int, ...]) -> None:
        demand = self._demand.of_each(now)
        copies = copies_of(demand, len(numbers), max(self._facts.slots, 1))
        wanted = placed(copies, numbers, max(self._facts.slots, 1), demand)
        for adapter, home in wanted.items():
            before = self._homes.get(adapter, {})
            self.moves += len(home - before.keys()) if before else 0
            stays = {n: left - 1 for n, left in before.items() if n not in home and left > 1 and n in numbers}
            self._homes[adapter] = stays | dict.fromkeys(home, self._patience)
        self._numbers, self._next_s = numbers, now + min(self._every_s, max(now, FIRST_PART * self._every_s))


def _patience(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ConfigError(f"router: patience = {short(value)} is not allowed; expected a whole number from 1")
    return value
