"""Routers that add up scores of each replica, as in llm-d and Dynamo, and routers that match prompts sent before."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from graphsim.brief import call_text
from graphsim.errors import ConfigError, choices_text
from graphsim.serving.fleet.prefixes import SentPrefixes
from graphsim.serving.fleet.router import FleetFacts, least_loaded
from graphsim.serving.fleet.views import View
from graphsim.serving.requests import Request
from graphsim.traffic.table import BASE
from graphsim.units import as_number, short

LLM_D_WEIGHTS: Mapping[str, float] = {"queue": 2.0, "kv": 2.0, "prefix": 3.0, "lora-affinity": 1.0}
"""Weights of the endpoint picker's default profile (llm-d and the Gateway API inference extension: queue-scorer 2,
kv-cache-utilization-scorer 2, prefix-cache-scorer 3). The guide to adapters adds lora-affinity-scorer; its weight of 1
is assumed, since none is stated."""
BALANCED_BY, BALANCED_TIMES = 32, 1.0001
"""Requests by which, and times as many as, the fullest replica may exceed the emptiest before prefixes are disregarded
(sglang_router's balance_abs_threshold and balance_rel_threshold, quoted from memory)."""
MATCHED_SHARE = 0.5
"""Share of a prompt that a replica must have received before to be chosen for it (sglang_router --help:
cache-threshold).
"""

Score = Callable[["Weighted", Request, Sequence[View]], list[float]]


def _spans(values: list[float]) -> list[float]:
    """Scores from 1 for the least to 0 for the largest value; all 1 if they are equal (queue-scorer)."""
    low, high = min(values), max(values)
    return [1.0] * len(values) if high == low else [(high - value) / (high - low) for value in values]


def _queue(_: Weighted, request: Request, views: Sequence[View]) -> list[float]:
    return _spans([float(view.waiting) for view in views])


def _load(_: Weighted, request: Request, views: Sequence[View]) -> list[float]:
    return _spans([float(view.load) for view in views])


def _kv(_: Weighted, request: Request, views: Sequence[View]) -> list[float]:
    return [1.0 - view.kv_use for view in views]


def _prefix(weighted: Weighted, request: Request, views: Sequence[View]) -> list[float]:
    blocks = max(request.inputs // weighted.facts.block_tokens, 1)
    return [min(weighted.prefixes.matched(request, view.number) / blocks, 1.0) for view in views]


def _lora_affinity(weighted: Weighted, request: Request, views: Sequence[View]) -> list[float]:
    """1 where the adapter is in the batch; 0.8 where another would have room, 0.6 where it waits, 0 else."""
    adapter, slots = request.adapter, weighted.facts.slots
    if adapter == BASE:
        return [0.0] * len(views)
    found = []
    for view in views:
        active = view.active
        if adapter in active:
            found.append(1.0)
            continue
        queued = view.queued
        if len({*active, *queued} if queued else active) < slots:
            found.append(0.8)
        else:
            found.append(0.6 if adapter in queued else 0.0)
    return found


def _lora_state(weighted: Weighted, request: Request, views: Sequence[View]) -> list[float]:
    """1 in a slot, 0.7 in the host's memory, 0.6 a free slot, 0.3 one that is idle, 0 none; without an adapter, the
    share of slots that no running adapter has."""
    adapter, slots = request.adapter, max(weighted.facts.slots, 1)
    if adapter == BASE:
        return [1.0 - min(len(view.active) / slots, 1.0) for view in views]
    found = []
    for view in views:
        if adapter in view.resident:
            found.append(1.0)
        elif adapter in view.in_host:
            found.append(0.7)
        elif len(view.resident) < slots:
            found.append(0.6)
        else:
            found.append(0.3 if len(view.active) < slots else 0.0)
    return found


SCORES: dict[str, Score] = {
    "queue": _queue, "load": _load, "kv": _kv, "prefix": _prefix, "lora-affinity": _lora_affinity,
    "lora-load-state": _lora_state,
}  # fmt: skip
"""The scores of a `Weighted` router, each from 0 to 1; the adapters' are those of llm-d-router's
lora-affinity-scorer and lora-load-state-scorer (its issue 2605 and change 2792)."""


class Weighted:
    """The replica with the largest sum of weighted scores; among equal ones, the one that was sent the fewest requests.

    weights: of scores by name: queue (fewest waiting), load (fewest waiting and running), kv (least cache in use),
        prefix (most of the prompt sent there before), lora-affinity, lora-load-state; llm-d's by default
    """

    def __init__(self, weights: Mapping[str, float] | None = None) -> None:
        self.weights = {name: _weight(name, value) for name, value in (weights or LLM_D_WEIGHTS).items()}
        self.facts, self.prefixes = FleetFacts(replicas=1), SentPrefixes(1)

    def __repr__(self) -> str:
        return call_text(self, weights=self.weights)

    def prepare(self, facts: FleetFacts) -> None:
        """Record as many blocks of prompts as a replica's cache has."""
        self.facts, self.prefixes = facts, SentPrefixes(facts.kv_blocks)

    def route(self, request: Request, views: Sequence[View]) -> int:
        """The replica with the highest score."""
        totals = [0.0] * len(views)
        for name, weight in self.weights.items():
            for i, score in enumerate(SCORES[name](self, request, views)):
                totals[i] += weight * score
        best = max(range(len(views)), key=lambda i: (totals[i], -views[i].sent, -views[i].number))
        number = views[best].number
        if "prefix" in self.weights and request.segments:
            self.prefixes.add(request, number)
        return number


def _weight(name: Any, value: Any) -> float:
    if name not in SCORES:
        raise ConfigError(f"router: score {short(name)} is not known; {choices_text(name, SCORES)}")
    number = as_number(value)
    if not isinstance(number, float) or not 0.0 <= number < float("inf"):
        raise ConfigError(f"router: weight of {name} = {short(value)} is not allowed; expected a number from 0")
    return number


class PrefixAware:
    """The replica that was sent most of the prompt before, while loads are balanced, as SGLang's router does.

    If the fullest replica is too far ahead of the emptiest, the least loaded one; if less than half of the prompt was
    sent anywhere, the replica with the fewest recorded blocks.
    """

    def __init__(
        self, share: float = MATCHED_SHARE, balanced_by: int = BALANCED_BY, balanced_times: float = BALANCED_TIMES
    ) -> None:
        self._share, self._by, self._times = share, balanced_by, balanced_times
        self._facts, self._prefixes = FleetFacts(replicas=1), SentPrefixes(1)

    def __repr__(self) -> str:
        return call_text(self, share=self._share, balanced_by=self._by, balanced_times=self._times)

    def prepare(self, facts: FleetFacts) -> None:
        """Record as many blocks of prompts as a replica's cache has."""
        self._facts, self._prefixes = facts, SentPrefixes(facts.kv_blocks)

    def route(self, request: Request, views: Sequence[View]) -> int:
        """By prefixes, or by load."""
        number = self._choose(request, views)
        if request.segments:
            self._prefixes.add(request, number)
        return number

    def _choose(self, request: Request, views: Sequence[View]) -> int:
        loads = [view.load for view in views]
        if max(loads) - min(loads) > self._by and max(loads) > self._times * min(loads):
            return least_loaded(views).number
        if not request.segments:
            return least_loaded(views).number
        known = {view.number: self._prefixes.matched(request, view.number) for view in views}
        best = max(views, key=lambda view: (known[view.number], -view.load, -view.number))
        if known[best.number] * self._facts.block_tokens > self._share * request.inputs:
            return best.number
        return min(views, key=lambda view: (self._prefixes.blocks(view.number), view.load, view.number)).number


class Dynamo:
    """The least sum of prompt blocks left to compute and blocks in use, as Dynamo's KV router has it.

    cost = overlap_weight x (blocks of prompts ahead, and of this one except for what was sent there before) + blocks of
    the cache in use; the least is chosen, which is its temperature of 0 (ai-dynamo/dynamo, docs: KV cache routing;
    `--kv-overlap-score-weight`, 1 by default).
    """

    def __init__(self, overlap_weight: float = 1.0) -> None:
        self._weight = overlap_weight
        self._facts, self._prefixes = FleetFacts(replicas=1), SentPrefixes(1)

    def __repr__(self) -> str:
        return call_text(self, overlap_weight=self._weight)

    def prepare(self, facts: FleetFacts) -> None:
        """Record as many blocks of prompts as a replica's cache has."""
        self._facts, self._prefixes = facts, SentPrefixes(facts.kv_blocks)

    def route(self, request: Request, views: Sequence[View]) -> int:
        """The cheapest."""
        size = self._facts.block_tokens

        def cost(view: View) -> tuple[float, int, int]:
            left = request.inputs / size - self._prefixes.matched(request, view.number) + view.queued_tokens / size
            return self._weight * left + view.kv_blocks, view.sent, view.number

        number = min(views, key=cost).number
        if request.segments:
            self._prefixes.add(request, number)
        return number
