"""A router's view of the replicas: live, or scraped some time ago."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Protocol

from graphsim.serving.driven_engine import DrivenEngine
from graphsim.traffic.table import BASE

LLM_D_SCRAPE_S = 0.05
"""Default seconds between two reads of a server's metrics by llm-d's and the Gateway API's endpoint picker
(`--refresh-metrics-interval`, kubernetes-sigs/gateway-api-inference-extension)."""
PROMETHEUS_SCRAPE_S = 15.0
"""The same for a Prometheus server with the `scrape_interval` of its example."""


@dataclass(slots=True)
class Clock:
    """Seconds on the fleet's clock."""

    now: float = 0.0


class View(Protocol):
    """One replica, as a router sees it.

    number: of the replica
    open: requests that the router has sent there and that have not ended
    sent: all of them.
        These two are the router's own and never stale; the others are the replica's
    load: requests running and waiting: those in its batch, and in its queue
    queued_tokens: tokens of the waiting prompts; kv_blocks, kv_use: blocks of its cache in use, and as a share of all
    active, queued: adapters of the batch, and of waiting requests; resident, in_host: adapters in a slot, in host
        memory
    """

    number: int
    open: int
    sent: int

    @property
    def load(self) -> int:
        """Requests running and waiting."""

    @property
    def running(self) -> int:
        """Requests in the batch."""

    @property
    def waiting(self) -> int:
        """Requests before it."""

    @property
    def queued_tokens(self) -> int:
        """Tokens of waiting prompts."""

    @property
    def kv_blocks(self) -> int:
        """Blocks of the cache in use."""

    @property
    def kv_use(self) -> float:
        """Share of its blocks."""

    @property
    def active(self) -> Collection[int]:
        """Adapters of the batch."""

    @property
    def queued(self) -> Collection[int]:
        """Adapters of waiting requests."""

    @property
    def resident(self) -> Collection[int]:
        """Adapters in a slot."""

    @property
    def in_host(self) -> Collection[int]:
        """Adapters in the host's memory."""


class LiveView:
    """A replica as it is at this moment."""

    __slots__ = ("number", "open", "sent", "_driven", "_clock", "_engine", "_batch", "_requests", "_queue", "_inbox")

    def __init__(self, number: int, driven: DrivenEngine, clock: Clock) -> None:
        self.number, self._driven, self._clock = number, driven, clock
        self.open = self.sent = 0
        self._engine = driven.engine
        self._batch, self._requests = driven.engine.batch, driven.engine.running.requests
        self._queue, self._inbox = driven.engine.queue, driven.inbox

    @property
    def load(self) -> int:
        """Requests running and waiting, those on their way included."""
        return len(self._requests) + len(self._batch.partials) + self._queue.size + len(self._inbox.coming)

    @property
    def running(self) -> int:
        """Requests in the batch."""
        return self._engine.batch.alive

    @property
    def waiting(self) -> int:
        """Requests before it, those on their way included."""
        return self._driven.waiting

    @property
    def queued_tokens(self) -> int:
        """Tokens of waiting prompts."""
        return self._engine.queue.tokens

    @property
    def kv_blocks(self) -> int:
        """Blocks in use."""
        return self._driven.kv_blocks(self._clock.now)

    @property
    def kv_use(self) -> float:
        """Share of the cache's blocks."""
        return self.kv_blocks / max(self._engine.batch.cache.size, 1)

    @property
    def active(self) -> Collection[int]:
        """Adapters of the batch."""
        used = self._engine.batch.used
        return used.keys() - {BASE} if BASE in used else used.keys()

    @property
    def queued(self) -> Collection[int]:
        """Adapters of waiting requests."""
        queue = self._engine.queue
        return [a for a, count in queue.counts.items() if count and a != BASE] if queue.size else ()

    @property
    def resident(self) -> Collection[int]:
        """Adapters in a slot."""
        return self._driven.store.slots if self._driven.store is not None else ()

    @property
    def in_host(self) -> Collection[int]:
        """Adapters in the host's memory."""
        return self._driven.store.host if self._driven.store is not None else ()


@dataclass(slots=True, eq=False)
class ScrapedView:
    """A replica as its metrics were when they were last read."""

    number: int
    open: int = 0
    sent: int = 0
    running: int = field(default=0, init=False)
    waiting: int = field(default=0, init=False)
    queued_tokens: int = field(default=0, init=False)
    kv_blocks: int = field(default=0, init=False)
    kv_use: float = field(default=0.0, init=False)
    active: Collection[int] = field(default=(), init=False)
    queued: Collection[int] = field(default=(), init=False)
    resident: Collection[int] = field(default=(), init=False)
    in_host: Collection[int] = field(default=(), init=False)

    @property
    def load(self) -> int:
        """Requests running and waiting."""
        return self.running + self.waiting

    def scrape(self, live: LiveView) -> None:
        """Read them now."""
        self.running, self.waiting, self.queued_tokens = live.running, live.waiting, live.queued_tokens
        self.kv_blocks, self.kv_use = live.kv_blocks, live.kv_use
        self.active, self.queued = frozenset(live.active), frozenset(live.queued)
        self.resident, self.in_host = frozenset(live.resident), frozenset(live.in_host)
