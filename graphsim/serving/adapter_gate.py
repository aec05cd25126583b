"""Which waiting requests an engine may admit with regard to adapters: slots, loads, merged weights, fairness.

The scheduler consults it first and then checks places, tokens and blocks.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from math import inf

from graphsim.serving.adapter_store import AdapterStore
from graphsim.serving.drainer import Drainer
from graphsim.serving.queue import Queue
from graphsim.serving.requests import Request
from graphsim.serving.rules import Rules
from graphsim.serving.run_log import RunLog
from graphsim.serving.running import Running
from graphsim.serving.weights import Demand, Weights
from graphsim.traffic.table import BASE


class AdapterGate:
    """Decides on each waiting request, after inspecting queue and batch before a step's admissions.

    pages: whether adapters take blocks of the KV cache; chooses: whether it may propose candidates
    next_s: time of the next check even if no request arrives or leaves: when a load or a time slice ends, or an adapter
        starves
    """

    def __init__(self, rules: Rules, store: AdapterStore | None, weights: Weights | None, log: RunLog) -> None:
        self.store, self.log, self.places = store, log, rules.max_num_seqs
        self.rules = rules.adapters
        self.weights = None if weights is None or type(weights) is Weights else weights
        starves = self.rules.drain_after_s < inf and self.rules.max_loras
        self.drainer = Drainer(self.rules.max_loras, self.rules.drain_after_s) if starves else None
        self.pages = store is not None and type(store).needed is not AdapterStore.needed
        self.chooses = self.drainer is not None or self.weights is not None
        self._overlaps = store is not None and self.rules.loads == "overlapped"
        self.next_s = inf

    @property
    def looks(self) -> bool:
        """Whether a check is needed before admissions."""
        return bool(self.weights or self.drainer or self._overlaps or (self.store and self.rules.prefetch))

    def look(
        self, now: float, queue: Queue, used: Mapping[int, int], running: Running, partials: Collection[Request]
    ) -> float:
        """Change weights, drain and fetch adapters as due; returns the seconds for which the step waits.

        used: number of running requests of each adapter
        """
        self.next_s = inf
        if not queue.size:
            return 0.0
        first = queue.first_of_each()
        since = {request.adapter: float(self.log.received_s[request.row]) for request in first}
        stall = 0.0
        if self.weights is not None and self.store is not None:
            base = len(running.requests) + len(partials) - sum(used.values())
            demand = Demand(
                waiting=queue.counts, waiting_since=since, running=used if BASE in used else {**used, BASE: base},
                places=self.places, steps=running.steps,
            )  # fmt: skip
            stall = self.weights.plan(now, demand, self.store)
            self.next_s = self.weights.next_s(now)
        if self.drainer is not None:
            self._drain(self.drainer, now, since, running, partials)
        if self.store is not None and self.rules.prefetch:
            self.store.prefetch((request.adapter for request in first), now, used)
            self.next_s = min(self.next_s, self.store.next_ready_s(now))
        return stall

    def _drain(
        self,
        drainer: Drainer,
        now: float,
        since: Mapping[int, float],
        running: Running,
        partials: Collection[Request],
    ) -> None:
        self.next_s = min(self.next_s, drainer.next_s(now, since))
        if not drainer.drained and not drainer.starving(now, since):
            return
        remaining: dict[int, int] = {}
        left = [(request.adapter, request.end - running.steps) for request in running.requests]
        left += [(request.adapter, request.outputs - request.generated) for request in partials]
        for adapter, tokens in left:
            remaining[adapter] = max(tokens, remaining.get(adapter, 0))
        if not self.rules.base_takes_place:
            remaining.pop(BASE, None)
        drainer.update(now, since, remaining)

    def candidates(self, queue: Queue) -> Iterable[Request] | None:
        """The requests to consider, in order; None if the queue's head and the running adapters decide."""
        if self.drainer is not None and self.drainer.drained:
            drainer = self.drainer
            return queue.first_of_each(lambda request: drainer.admits(request.adapter, request.outputs))
        return queue.first_of_each() if self.weights is not None else None

    def admits(self, request: Request, used: Collection[int], now: float) -> bool:
        """Whether a request may run with the running adapters; starts its adapter's load if possible."""
        adapter = request.adapter
        if self.weights is not None and not self.weights.admits(adapter):
            return False
        if self.drainer is not None and not self.drainer.admits(adapter, request.outputs):
            return False
        if adapter in used or (adapter == BASE and not self.rules.base_takes_place) or self.store is None:
            return True
        if not self._overlaps:
            return self.store.room_for(adapter, used)
        if adapter != BASE and self.store.ready_s(adapter, now) > now:
            self.store.fetch(adapter, now, used)
            self.next_s = min(self.next_s, self.store.next_ready_s(now))
            return False
        return self.store.room_for(adapter, used, now)

    def blocks(self, request: Request, used: Collection[int]) -> int:
        """Blocks of the KV cache that a request's adapter takes in addition to its own."""
        return 0 if self.store is None or request.adapter in used else self.store.needed(request.adapter)

    def held_blocks(self, request: Request) -> int:
        """Blocks of the KV cache that adapters of the batch hold, and a request's own."""
        return 0 if self.store is None else self.store.held_blocks + self.store.needed(request.adapter)

    def beside(self, used: Collection[int]) -> int:
        """Number of adapters that a step computes in addition to the weights."""
        return len(used) - (BASE in used) if self.weights is None else self.weights.beside(used)
