"""Which adapter is merged into the weights, and what it takes to change that: what a loop asks of a strategy.

Merging W0 + BA rewrites every adapted weight; the steps in between are the base model's own. The passes are priced by
their LORA_MERGE nodes (`graphsim.analysis.lifecycle`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from math import inf
from typing import Protocol

from graphsim.errors import ConfigError, choices_text
from graphsim.serving.adapter_store import AdapterStore
from graphsim.serving.step_price import StepPrice
from graphsim.traffic.table import BASE

WAYS = ("switch", "unmerge", "restore")


class MergeTimes(Protocol):
    """The times of a Lifecycle that matter here, in seconds."""

    @property
    def merge_s(self) -> float:
        """Seconds to merge an adapter."""

    @property
    def unmerge_s(self) -> float:
        """Seconds to remove a merged adapter."""

    @property
    def switch_s(self) -> float:
        """Seconds to replace one adapter by another in one pass."""

    @property
    def restore_s(self) -> float:
        """Seconds to copy the untouched weights back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightTimes:
    """Seconds of each change of the weights.

    needs_old: whether the adapter that leaves the weights has to be on the device for it
    """

    merge_s: float
    unmerge_s: float
    switch_s: float
    needs_old: bool = True

    @classmethod
    def of(cls, lifecycle: MergeTimes, way: str = "switch") -> WeightTimes:
        """The times of a deployment's Lifecycle.

        way: `switch` adds the difference of both adapters in one pass; `unmerge` takes the old one out first; `restore`
            copies the untouched weights back, which takes memory for a copy of them. Raises ConfigError for others.
        """
        if way not in WAYS:
            raise ConfigError(f"way of changing weights = '{way}' is not known; {choices_text(way, WAYS)}")
        merge_s, unmerge_s = float(lifecycle.merge_s), float(lifecycle.unmerge_s)
        if way == "restore":
            restore_s = float(lifecycle.restore_s)
            return cls(merge_s=merge_s, unmerge_s=restore_s, switch_s=restore_s + merge_s, needs_old=False)
        switch_s = float(lifecycle.switch_s) if way == "switch" else unmerge_s + merge_s
        return cls(merge_s=merge_s, unmerge_s=unmerge_s, switch_s=switch_s)

    def change_s(self, old: int, new: int, both: bool) -> float:
        """Seconds to replace the adapter in the weights, BASE for none; both: whether both have a slot at once."""
        if old == new:
            return 0.0
        if old == BASE:
            return self.merge_s
        if new == BASE:
            return self.unmerge_s
        return self.switch_s if both else self.unmerge_s + self.merge_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """The requests that a loop shows to a strategy, by adapter, BASE for those without.

    waiting: in the queue
    waiting_since: when the first of these was received
    running: in the batch, including prompts
        in chunks; places: most sequences that run at once; steps: number of steps so far
    """

    waiting: Mapping[int, int]
    waiting_since: Mapping[int, float]
    running: Mapping[int, int]
    places: int = 1
    steps: int = 0

    def of(self, adapter: int) -> int:
        """Requests of an adapter, waiting or running."""
        return self.waiting.get(adapter, 0) + self.running.get(adapter, 0)

    @property
    def adapters(self) -> Collection[int]:
        """All adapters with a request."""
        return {adapter for counts in (self.waiting, self.running) for adapter, count in counts.items() if count}

    def oldest(self) -> int | None:
        """The adapter of the request that waits longest; None where none waits."""
        waiting = [adapter for adapter, count in self.waiting.items() if count]
        return min(waiting, key=lambda adapter: (self.waiting_since[adapter], adapter), default=None)


class Weights:
    """A strategy that changes the weights; this one keeps the base model's, which is the dynamic strategy.

    A loop calls `plan` before its admissions whenever a request has arrived or left, and at `next_s`, and lets the step
    wait for the seconds that it returns; it admits only requests for which `admits` is true, and prices the step with
    as many adapters as `beside` returns. With an empty batch and a waiting request, `plan` always admits one.

    merged: the adapter in the weights, BASE for none; switches: (start_s, seconds, adapter), including any load
    """

    def __init__(self, times: WeightTimes) -> None:
        self.times = times
        self.merged = BASE
        self.switches: list[tuple[float, float, int]] = []

    def plan(self, now: float, demand: Demand, store: AdapterStore) -> float:
        """Changes the weights where that is due and possible; returns the seconds it takes, loads included."""
        return 0.0

    def admits(self, adapter: int) -> bool:
        """Whether a request of an adapter may join the batch now."""
        return True

    def beside(self, used: Collection[int]) -> int:
        """Number of adapters that a step of these computes in addition to the weights."""
        return sum(1 for adapter in used if adapter != BASE)

    def next_s(self, now: float) -> float:
        """When the strategy may change its decision even if no request arrives or leaves; inf for never."""
        return inf

    def _change(self, adapter: int, now: float, store: AdapterStore, running: Collection[int] = ()) -> float:
        """Another adapter into the weights: its load, the old one's where that has left its slot, and the passes.

        running: adapters of the batch, none of which leaves its slot for it
        """
        old = self.merged if self.times.needs_old else BASE
        needed = {each for each in (old, adapter) if each != BASE}
        both = len(needed) < 2 or store.room_for(adapter, {old, *running}, now)
        seconds = 0.0
        for each in sorted(needed, key=lambda each: each == adapter):
            seconds += store.wait_for(each, now, {*running, *(needed if both else (each,))})
        seconds += self.times.change_s(self.merged, adapter, both)
        self.switches.append((now, seconds, adapter))
        self.merged = adapter
        return seconds


class MergedPrice:
    """Steps of an engine that runs the plain model's steps if no adapter is computed in addition to the weights.

    A step cannot be asked for more adapters than it has tokens; a token that needs two is priced as one of one.
    """

    def __init__(self, base: StepPrice, dynamic: StepPrice) -> None:
        """base: of the deployment without LoRA; dynamic: of the one with adapters in slots, loads included."""
        self.base, self.dynamic = base, dynamic

    def decode(self, batch: int, context: int, adapters: int) -> tuple[float, float, int]:
        """As StepPrice.decode."""
        return (self.dynamic if adapters else self.base).decode(batch, context, min(adapters, batch))

    def mixed(
        self, prompt_tokens: int, pairs: float, prompts: int, ending: int, batch: int, context: int, adapters: int
    ) -> float:
        """As StepPrice.mixed."""
        price = self.dynamic if adapters else self.base
        distinct = min(adapters, batch + prompt_tokens)
        return price.mixed(prompt_tokens, pairs, prompts, ending, batch, context, distinct)

    def load(self, adapter: int, from_disk: bool) -> float:
        """As StepPrice.load."""
        return self.dynamic.load(adapter, from_disk)
