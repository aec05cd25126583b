"""One merged adapter at a time, and whose turn it is.

Steps have no LoRA work; requests of other adapters, and of the base model, wait for their turn. Requests that run are
not paused: before a change of weights the batch drains, and no request is admitted that needs other weights.
"""

from __future__ import annotations

from collections.abc import Collection
from math import inf

from graphsim.errors import ConfigError
from graphsim.serving.adapter_store import AdapterStore
from graphsim.serving.weights import Demand, Weights, WeightTimes
from graphsim.traffic.table import BASE


class Merged(Weights):
    """One adapter at a time; subclasses say whose turn it is."""

    def __init__(self, times: WeightTimes) -> None:
        super().__init__(times)
        self._open = True  # whether its requests may join, which is not so while the batch drains for another

    def turn(self, now: float, demand: Demand) -> int:
        """The adapter that should be merged, given that requests wait."""
        raise NotImplementedError

    def plan(self, now: float, demand: Demand, store: AdapterStore) -> float:
        """Drain the batch if it is another adapter's turn, and change the weights when it is empty."""
        if demand.oldest() is None:
            return 0.0
        wanted = self.turn(now, demand)
        self._open = wanted == self.merged
        if self._open:
            return 0.0
        if any(count for count in demand.running.values()):
            if store.rules.loads == "overlapped" and wanted != BASE:
                store.fetch(wanted, now, {adapter for adapter in demand.running if adapter != BASE})
            return 0.0
        self._open = True
        return self._change(wanted, now, store)

    def admits(self, adapter: int) -> bool:
        """Whether it is the merged adapter, and the batch is not draining for another."""
        return self._open and adapter == self.merged

    def beside(self, used: Collection[int]) -> int:
        """No adapters: the only one is in the weights."""
        return 0


class Greedy(Merged):
    """Keeps the adapter while it has requests, waiting or running; then the adapter that has waited longest is next."""

    def turn(self, now: float, demand: Demand) -> int:
        """The merged one's, or the oldest request's."""
        oldest = demand.oldest()
        return self.merged if demand.of(self.merged) or oldest is None else oldest


class InOrder(Merged):
    """In order of arrival: no request is admitted before an older request of another adapter."""

    def turn(self, now: float, demand: Demand) -> int:
        """The oldest request's."""
        oldest = demand.oldest()
        return self.merged if oldest is None else oldest


class LongestQueue(Merged):
    """The adapter with most requests, waiting or running; the merged one stays if it has equally many."""

    def turn(self, now: float, demand: Demand) -> int:
        """The adapter with most requests."""
        return max(demand.adapters, key=lambda adapter: (demand.of(adapter), adapter == self.merged, -adapter))


class TimeSlice(Merged):
    """Each adapter in turn for this many seconds, as long as others wait, in the order of their numbers."""

    def __init__(self, times: WeightTimes, slice_s: float = 5.0) -> None:
        super().__init__(times)
        if not slice_s > 0.0:
            raise ConfigError(f"slice_s is {slice_s}; a time slice is a number of seconds above 0")
        self.slice_s = slice_s
        self._until = -inf

    def turn(self, now: float, demand: Demand) -> int:
        """The merged one's until its time is over or it has no requests, then that of the next who waits."""
        others = [adapter for adapter, count in demand.waiting.items() if count and adapter != self.merged]
        if not others or (now < self._until and demand.of(self.merged)):
            return self.merged
        return min(others, key=lambda adapter: (adapter <= self.merged, adapter))

    def next_s(self, now: float) -> float:
        """The end of the slice."""
        return self._until if self._until > now else inf

    def _change(self, adapter: int, now: float, store: AdapterStore, running: Collection[int] = ()) -> float:
        seconds = super()._change(adapter, now, store, running)
        self._until = now + seconds + self.slice_s
        return seconds
