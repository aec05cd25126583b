"""Where adapters are: in a slot of the device, in host memory, or on disk.

An adapter comes from disk to the host's memory and from there into a slot; what is in a slot stays in the host's
memory, too (vLLM's LRU cache of `max_cpu_loras`, which must not be below `max_loras`). Loads follow each other over the
link to the device. Adapters of the running batch, adapters being loaded, and pinned ones are never evicted.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from math import inf
from typing import Protocol

from graphsim.errors import ConfigError
from graphsim.serving.eviction import Usage, checked_eviction, victim
from graphsim.serving.rules import AdapterRules
from graphsim.traffic.table import BASE


class BlockPool(Protocol):
    """Blocks of the KV cache. available: blocks held by neither a request nor an adapter of the batch.

    idle_adapter_blocks: number of available blocks that still contain idle adapters (`graphsim.serving.paging`)
    """

    available: int
    idle_adapter_blocks: int


class AdapterStore:
    """Slots, host memory and disk, and the loads between them.

    A loop in which loads stall the batch calls `use` for each adapter that joins a step's batch, and adds up the
    seconds. One that overlaps them (`rules.loads`) calls `ready_s`; if that is later than now it calls `fetch`, leaves
    the request in the queue, and admits it with `use` once it is ready; `next_ready_s` is the time of the next check.
    Both call `join` for every further request of an adapter in the batch and `touch` when its last one has left.

    loads: (start_s, seconds, adapter, from_disk as 0 or 1), in order; stall_s: seconds that batches waited, by adapter
    hits: requests that found their adapter in its slot, by adapter; misses: requests that did not
    """

    def __init__(
        self, rules: AdapterRules, load_s: Callable[[int, bool], float], sizes: Sequence[float] | None = None
    ) -> None:
        """A store at the start of an engine: pinned adapters are in their slots.

        rules: slots and tiers
        load_s: seconds from host memory, or from disk, into a slot (StepPrice.load)
        sizes: rank or bytes of each registered adapter; all equal by default. Raises ConfigError for rules that no
            engine can follow.
        """
        self.rules, self.sizes = rules, sizes
        self.loads: list[tuple[float, float, int, int]] = []
        self.hits: Counter[int] = Counter()
        self.misses: Counter[int] = Counter()
        self.stall_s: defaultdict[int, float] = defaultdict(float)
        self._load_s, self._pinned = load_s, frozenset(rules.pinned)
        self._uses: Counter[int] = Counter()
        self._slots: dict[int, Usage] = {}
        self._host: dict[int, Usage] = {}
        self._ready: dict[int, float] = {}  # of those being loaded
        self._fetched: set[int] = set()  # for a waiting request, which did not find them in a slot
        self._link_s = self._stalled_s = 0.0  # time from which the link is free and the batch continues
        _check(rules, sizes)
        for adapter in sorted(self._pinned):
            self._slots[adapter] = self._entry(adapter, 0.0)
            self._host[adapter] = self._entry(adapter, 0.0)

    def attach(self, pool: BlockPool) -> None:
        """The blocks of the engine's KV cache; slots take none of them."""

    def needed(self, adapter: int) -> int:
        """Blocks of the KV cache that an adapter takes when it joins the batch."""
        return 0

    @property
    def held_blocks(self) -> int:
        """Blocks of the KV cache that adapters of the batch have."""
        return 0

    def settle(self, now: float) -> None:
        """Called after blocks of the KV cache were taken."""

    @property
    def host_capacity(self) -> int:
        """Adapters that the host's memory holds; at least as many as there are slots."""
        return max(self.rules.max_cpu_loras, self.rules.max_loras)

    @property
    def slots(self) -> Collection[int]:
        """Adapters that have a slot, including those being loaded."""
        return self._slots.keys()

    @property
    def host(self) -> Collection[int]:
        """Adapters in the host's memory."""
        return self._host.keys()

    def room_for(self, adapter: int, busy: Collection[int], now: float | None = None) -> bool:
        """Whether an adapter has a slot or can get one while those of the batch, `busy`, keep theirs.

        now: if loads overlap; loads that have ended by then no longer hold a slot
        """
        if adapter in busy:
            return True
        if now is not None:
            self._arrive(now)
        held = len(busy) + sum(1 for a in self._pinned if a != adapter and a not in busy)
        held += sum(1 for a in self._ready if a != adapter and a not in busy and a not in self._pinned)
        return held < self.rules.max_loras

    def use(self, adapter: int, now: float, busy: Collection[int]) -> float:
        """Add an adapter to the batch, loading it if it has no slot. Returns the seconds that the batch waits for it.

        If several adapters join at the same time, each returns the seconds in addition to those before it.
        """
        self._arrive(now)
        if adapter in self._slots and adapter not in self._fetched:
            self.hits[adapter] += 1
        else:
            self.misses[adapter] += 1
            self._fetched.discard(adapter)
        stall = self.wait_for(adapter, now, busy)
        self._uses[adapter] += 1
        self._note(adapter, now)
        return stall

    def wait_for(self, adapter: int, now: float, busy: Collection[int]) -> float:
        """As `use`, for the engine itself (to merge it): no request is counted as a hit or a miss."""
        self._arrive(now)
        ready = self._bring(adapter, now, busy)
        begun = max(now, self._stalled_s)
        stall = max(0.0, ready - begun)
        if stall:
            self._stalled_s = begun + stall
            self.stall_s[adapter] += stall
        return stall

    def join(self, adapter: int) -> None:
        """One more request of an adapter that is in the batch already."""
        self.hits[adapter] += 1
        self._uses[adapter] += 1
        for tier in (self._slots, self._host):
            if adapter in tier:
                tier[adapter].uses = self._uses[adapter]

    def touch(self, adapter: int, now: float) -> None:
        """The last request of an adapter has left the batch."""
        self._arrive(now)
        self._note(adapter, now)

    def fetch(self, adapter: int, now: float, busy: Collection[int]) -> float:
        """Start to load an adapter for a waiting request, if there is room; returns when it is ready."""
        self._arrive(now)
        if adapter not in self._slots:
            if not self.room_for(adapter, busy):
                return inf
            self._bring(adapter, now, busy)
            self._fetched.add(adapter)
        return self.ready_s(adapter, now)

    def prefetch(self, waiting: Iterable[int], now: float, busy: Collection[int] | None = None) -> None:
        """Start to load the adapters of the first waiting requests, as many as the rules allow, before their turn.

        waiting: their adapters, in the queue's order
        busy: those of the batch; idle adapters that none of the waiting
            requests needs are then evicted. Without it only free slots are filled.
        """
        wanted = list(dict.fromkeys(adapter for adapter in waiting if adapter != BASE))[: self.rules.prefetch]
        if not wanted:
            return
        self._arrive(now)
        stays = {*(self._slots if busy is None else busy), *wanted}
        for adapter in wanted:
            if adapter not in self._slots:
                if not self._can_enter(adapter, {*self._staying(stays), *self._ready}, now):
                    return
                self._bring(adapter, now, stays)

    def _can_enter(self, adapter: int, stays: Collection[int], now: float) -> bool:
        """Whether each tier that does not contain it has a free place, or one that can be evicted."""
        return all(
            adapter in tier or not self._full(tier, adapter) or self._leaves(tier, stays, now) is not None
            for tier in (self._slots, self._host)
        )

    def keep(self, adapters: Collection[int]) -> None:
        """Pin these adapters in addition to those of the rules, instead of those kept so far."""
        self._pinned = frozenset({*self.rules.pinned, *adapters})

    def ready_s(self, adapter: int, now: float) -> float:
        """When a batch can use an adapter: now if it has a slot, at the end of its load, inf if none has begun."""
        if adapter not in self._slots:
            return inf
        return max(now, self._ready.get(adapter, now))

    def forget_loads(self, now: float) -> None:
        """Release the slots of loads that have ended."""
        self._arrive(now)

    def next_ready_s(self, now: float) -> float:
        """When the next load in progress ends; inf if there is none."""
        return min((ready for ready in self._ready.values() if ready > now), default=inf)

    def _bring(self, adapter: int, now: float, busy: Collection[int]) -> float:
        """When an adapter is ready in a slot; loads it if it has none."""
        if adapter in self._slots:
            return self._ready.get(adapter, now)
        stays = self._staying(busy)
        from_disk = False
        if adapter not in self._host and adapter != BASE:
            from_disk = not self.rules.preloaded or len(self._host) >= self.host_capacity
            self._make_room(self._host, adapter, stays, now)
            self._host[adapter] = self._entry(adapter, now)
        self._make_room(self._slots, adapter, stays, now)
        self._slots[adapter] = self._entry(adapter, now)
        if adapter == BASE:
            return now
        start, seconds = max(now, self._link_s), self._load_s(adapter, from_disk)
        self.loads.append((start, seconds, adapter, int(from_disk)))
        self._link_s = self._ready[adapter] = start + seconds
        return self._link_s

    def _full(self, tier: dict[int, Usage], adapter: int) -> bool:
        """Whether a tier has no room for an adapter without evicting another."""
        return len(tier) >= (self.rules.max_loras if tier is self._slots else self.host_capacity)

    def _make_room(self, tier: dict[int, Usage], adapter: int, stays: Collection[int], now: float) -> None:
        """Evict adapters from a full tier; one that is still being loaded only if there is no other choice."""
        while self._full(tier, adapter):
            leaving = self._leaves(tier, {*stays, *self._ready}, now) if self._ready else None
            if leaving is None:
                leaving = self._leaves(tier, stays, now)
            if leaving is None:
                raise ValueError(f"adapter {adapter} finds the places of {len(tier)} others in use: ask room_for first")
            self._drop(leaving, tier)

    def _leaves(self, tier: dict[int, Usage], stays: Collection[int], now: float) -> int | None:
        return victim(self.rules.eviction, tier, stays, now, self.rules.weights)

    def _drop(self, adapter: int, tier: dict[int, Usage]) -> None:
        """Remove an adapter from a tier; one that leaves host memory also leaves its slot."""
        if tier is self._host and adapter in self._slots:
            self._drop(adapter, self._slots)
        del tier[adapter]
        self._fetched.discard(adapter)
        self._ready.pop(adapter, None)

    def _staying(self, busy: Collection[int]) -> Collection[int]:
        return {*busy, *self._pinned} if self._pinned else busy

    def _arrive(self, now: float) -> None:
        """Remove the loads that have ended."""
        if self._ready and min(self._ready.values()) <= now:
            self._ready = {adapter: ready for adapter, ready in self._ready.items() if ready > now}

    def _note(self, adapter: int, now: float) -> None:
        """Mark an adapter as the most recently used."""
        for tier in (self._slots, self._host):
            usage = tier.pop(adapter, None)
            if usage is not None:
                usage.last_s, usage.uses = now, self._uses[adapter]
                tier[adapter] = usage

    def _entry(self, adapter: int, now: float) -> Usage:
        size = 1.0 if self.sizes is None or adapter == BASE else float(self.sizes[adapter])
        return Usage(entered_s=now, last_s=now, uses=self._uses[adapter], size=size)


def _check(rules: AdapterRules, sizes: Sequence[float] | None) -> None:
    checked_eviction(rules.eviction)
    pinned, slots = len(set(rules.pinned)), rules.max_loras
    if pinned > slots or (pinned == slots and slots and (sizes is None or len(sizes) > pinned)):
        raise ConfigError(
            f"{pinned} adapters are pinned in {slots} slots (max_loras), which leaves none for the others; "
            f"pin at most {max(slots - 1, 0)}"
        )
    unknown = [adapter for adapter in rules.pinned if adapter < 0 or (sizes is not None and adapter >= len(sizes))]
    if unknown:
        known = "adapters are counted from 0" if sizes is None else f"there are {len(sizes)}, counted from 0"
        raise ConfigError(f"pinned adapter {unknown[0]} does not exist; {known}")
