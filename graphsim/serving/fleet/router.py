"""Routers: which replica receives a request."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from random import Random
from typing import Protocol

from graphsim.serving.fleet.views import Clock, View
from graphsim.serving.requests import Request


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetFacts:
    """Facts that a router may use before the first request.

    replicas: number at the start
    adapters: number registered
    slots: adapter slots of each replica, 0 where none are
        served
    max_num_seqs, kv_blocks, block_tokens: of each replica's engine
    seed: of random draws
    ranks: of each adapter, empty where all are equal
    clock: of the fleet
    """

    replicas: int
    adapters: int = 0
    slots: int = 0
    max_num_seqs: int = 256
    kv_blocks: int = 1
    block_tokens: int = 16
    seed: int = 0
    ranks: tuple[int, ...] = ()
    clock: Clock = field(default_factory=Clock)


class Router(Protocol):
    """Decides where requests go. A custom object only needs `route`; `prepare` is called if there is one."""

    def route(self, request: Request, views: Sequence[View]) -> int:
        """The number of the replica, among those that take requests now.

        request: its adapter, segments (parts of its prompt that others share), inputs and priority may be read; the
            length of its answer (outputs) is unknown in a real fleet
        """


class KnowsNothing:
    """A base for routers that need no facts."""

    def prepare(self, facts: FleetFacts) -> None:
        """Called before the first request; does nothing."""


def least_loaded(views: Sequence[View]) -> View:
    """The one with fewest requests; among equal ones, the one that was sent fewest."""
    return min(views, key=lambda view: (view.load, view.sent, view.number))


class RoundRobin(KnowsNothing):
    """Each replica in turn."""

    def __init__(self) -> None:
        self._last = -1

    def route(self, request: Request, views: Sequence[View]) -> int:
        """The next one."""
        self._last += 1
        return views[self._last % len(views)].number


class RandomChoice:
    """Any replica, with the same probability."""

    def __init__(self, seed: int | None = None) -> None:
        self._seed, self._draw = seed, Random(seed or 0)

    def prepare(self, facts: FleetFacts) -> None:
        """Seed the draws from the traffic, if no seed was given."""
        self._draw = Random(facts.seed if self._seed is None else self._seed)

    def route(self, request: Request, views: Sequence[View]) -> int:
        """A random replica."""
        return views[self._draw.randrange(len(views))].number


class LeastLoaded(KnowsNothing):
    """Fewest requests running and waiting, as the replicas report them."""

    def route(self, request: Request, views: Sequence[View]) -> int:
        """The least loaded."""
        return least_loaded(views).number


class LeastOpen(KnowsNothing):
    """Fewest requests that the router has sent and not seen the end of (nginx's `least_conn`): never stale."""

    def route(self, request: Request, views: Sequence[View]) -> int:
        """The one with fewest open requests."""
        return min(views, key=lambda view: (view.open, view.sent, view.number)).number


class LeastKV(KnowsNothing):
    """The smallest share of the KV cache in use; among equal ones, the least loaded."""

    def route(self, request: Request, views: Sequence[View]) -> int:
        """The one with most room in its cache."""
        return min(views, key=lambda view: (view.kv_use, view.load, view.sent, view.number)).number


def spread(what: str, number: int) -> int:
    """A fixed pseudo-random number for an item and a replica, the same on every machine."""
    return int.from_bytes(blake2b(f"{what}:{number}".encode(), digest_size=8).digest(), "big")


def ranked(what: str, numbers: Sequence[int]) -> list[int]:
    """Replicas in the order in which rendezvous hashing prefers them (Thaler and Ravishankar, 1998).

    Adding or removing a replica moves only the items that belong to it.
    """
    return sorted(numbers, key=lambda number: (-spread(what, number), number))
