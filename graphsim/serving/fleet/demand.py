"""The demand for each adapter, and the number of replicas that should therefore hold it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import exp

from graphsim.serving.fleet.router import ranked


class Demand:
    """Load per adapter, averaged over the past with exponentially falling weights.

    As the controller of multi-LoRA placement in Dynamo counts arrivals (its changes 8177 and 8178): here by the rank of
    the adapter, since a kernel that sums ranks takes proportionally longer (`graphsim.lora`).
    """

    def __init__(self, ranks: Sequence[float], memory_s: float) -> None:
        """ranks: of each adapter, or other weights of its requests; memory_s: time in which a weight decays to 1/e."""
        self._weights, self._memory_s = list(ranks), memory_s
        self._load: dict[int, float] = {}
        self._at = 0.0

    def add(self, adapter: int, now: float) -> None:
        """Count a request for an adapter."""
        self._fade(now)
        self._load[adapter] = self._load.get(adapter, 0.0) + self._weights[adapter]

    def of_each(self, now: float) -> dict[int, float]:
        """Load of each adapter that was requested."""
        self._fade(now)
        return dict(self._load)

    def _fade(self, now: float) -> None:
        if now <= self._at:
            return
        factor = exp(-(now - self._at) / self._memory_s)
        self._load = {adapter: value * factor for adapter, value in self._load.items()}
        self._at = now


def copies_of(demand: Mapping[int, float], replicas: int, slots: int) -> dict[int, int]:
    """Number of replicas for each adapter, in proportion to its demand (largest remainder), at least one.

    replicas, slots: the total of `replicas * slots` slots is distributed; no adapter has more copies than
    there are replicas, and where there are more adapters than slots each has one.
    """
    total = sum(demand.values())
    budget = max(replicas * slots, len(demand))
    if not demand or not total > 0.0:
        return dict.fromkeys(demand, 1)
    exact = {adapter: min(value / total * budget, float(replicas)) for adapter, value in demand.items()}
    found = {adapter: max(int(value), 1) for adapter, value in exact.items()}
    left = budget - sum(found.values())
    for adapter in sorted(exact, key=lambda a: (int(exact[a]) - exact[a], a)):
        if left <= 0:
            break
        if found[adapter] < replicas and exact[adapter] > found[adapter]:
            found[adapter] += 1
            left -= 1
    return found


def placed(
    copies: Mapping[int, int], numbers: Sequence[int], slots: int, weights: Mapping[int, float]
) -> dict[int, frozenset[int]]:
    """Replicas for the copies of each adapter: those that rendezvous hashing prefers and that have slots free.

    weights: the demand; the heaviest adapters choose first. Where no slot is free an adapter goes to the replica with
    least demand.
    """
    free = dict.fromkeys(numbers, slots)
    demand = dict.fromkeys(numbers, 0.0)
    found: dict[int, frozenset[int]] = {}
    for adapter in sorted(copies, key=lambda a: (-weights.get(a, 0.0), a)):
        order = ranked(f"adapter {adapter}", numbers)
        each = weights.get(adapter, 0.0) / copies[adapter]
        wished = min(copies[adapter], len(numbers))
        fair = (sum(demand.values()) + weights.get(adapter, 0.0)) / len(numbers)
        order.sort(key=lambda number: (free[number] <= 0, demand[number] > fair))
        chosen = order[:wished]
        if free[chosen[0]] <= 0:
            chosen = sorted(numbers, key=lambda number: (demand[number], number))[:wished]
        for number in chosen:
            free[number] -= 1
            demand[number] += each
        found[adapter] = frozenset(chosen)
    return found
