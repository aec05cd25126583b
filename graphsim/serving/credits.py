"""dLoRA's credits: merged while most of the batch belongs to one adapter, unmerged otherwise or when another adapter
starves.

Source: Wu et al., OSDI 2024, and its artifact (`LLMServe/dLoRA-artifact`, `vllm/core/scheduler.py`: _credit_schedule,
_adjust_credit, _adjust_merge_threshold). Differences: their engine pauses the requests of other adapters while one is
merged, this one drains the batch first; the composition of a first-come batch is estimated in proportion to all
requests if there are more than places; a starving adapter pays back by running, while theirs pays only when it
displaces a request.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection

from graphsim.errors import ConfigError
from graphsim.serving.adapter_store import AdapterStore
from graphsim.serving.weights import Demand, Weights, WeightTimes
from graphsim.traffic.table import BASE

MERGED_STEP_S, UNMERGED_STEP_S = 0.015, 0.027
"""Steps of Llama-7B in the authors' profile; what matters is their ratio."""

LIMIT = 10_000.0
"""Credit from which an adapter counts as starving, until half of it is paid back (the artifact's thresholds)."""

ADDED, MULTIPLIED = 0.05, 1.1
"""Steps by which the thresholds move towards and away from the better mode."""


class Credits(Weights):
    """Merges or unmerges by thresholds on one adapter's share of the batch, with credits against starvation.

    A step that displaces a request of a first-come batch moves credit from the merged adapter to the displaced one's.
    merge_at, stay_at: shares of a batch at which an adapter is merged, and down to which it stays merged
    """

    def __init__(
        self,
        times: WeightTimes,
        merged_step_s: float = MERGED_STEP_S,
        unmerged_step_s: float = UNMERGED_STEP_S,
        limit: float = LIMIT,
    ) -> None:
        """merged_step_s, unmerged_step_s: of a usual batch; limit: credit of a starving adapter, in batches."""
        super().__init__(times)
        for name, value in (("merged_step_s", merged_step_s), ("unmerged_step_s", unmerged_step_s), ("limit", limit)):
            if not value > 0.0:
                raise ConfigError(f"{name} is {value}; dLoRA's credits need a number above 0")
        self.step_s, self.limit = {True: merged_step_s, False: unmerged_step_s}, limit
        self.stay_at, self.merge_at = min(merged_step_s / unmerged_step_s, 1.0), 1.0
        self.credit: defaultdict[int, float] = defaultdict(float)
        self._starving: set[int] = set()
        self._wanted = BASE
        self._steps = 0
        self._tried = _Tried()

    def plan(self, now: float, demand: Demand, store: AdapterStore) -> float:
        """Merges, unmerges or keeps the weights; a merge waits until only the adapter's own requests run."""
        counts = {adapter: demand.of(adapter) for adapter in demand.adapters}
        if not counts:
            return 0.0
        share = min(1.0, demand.places / sum(counts.values()))
        steps, self._steps = demand.steps - self._steps, demand.steps
        self._settle(counts, demand, share / demand.places * steps)
        largest = max(counts, key=lambda adapter: (counts[adapter], -adapter))
        self._tried.add(steps, share * sum(counts.values()), min(counts[largest], demand.places), largest)
        self._wanted = self._choose(counts, share, largest)
        if self._wanted == self.merged:
            return 0.0
        if self._wanted != BASE and any(n for adapter, n in demand.running.items() if adapter != self._wanted):
            return 0.0
        self._adapt()
        return self._change(self._wanted, now, store)

    def admits(self, adapter: int) -> bool:
        """Every adapter while unmerged; else only the adapter in the weights, or the next one to be merged."""
        return self._wanted == BASE or adapter == self._wanted

    def beside(self, used: Collection[int]) -> int:
        """No adapters in addition to the weights while merged."""
        return 0 if self.merged != BASE else super().beside(used)

    def _settle(self, counts: dict[int, int], demand: Demand, unit: float) -> None:
        """Credit for the steps since the last check: `unit` for each displaced request."""
        if self.merged != BASE:
            for adapter, count in counts.items():
                if adapter != self.merged:
                    moved = unit * count * self.step_s[False] / self.step_s[True]
                    self.credit[adapter] += moved
                    self.credit[self.merged] -= moved
        for adapter in self._starving:
            self.credit[adapter] -= unit * demand.running.get(adapter, 0)
        limits = {adapter: self.limit / 2.0 if adapter in self._starving else self.limit for adapter in counts}
        self._starving = {adapter for adapter in counts if self.credit[adapter] >= limits[adapter]}

    def _choose(self, counts: dict[int, int], share: float, largest: int) -> int:
        if self._starving:
            return BASE
        batch = share * sum(counts.values())
        if self.merged != BASE and counts.get(self.merged, 0) >= self.stay_at * batch and self._may(self.merged):
            return self.merged
        enough = counts[largest] >= self.merge_at * batch
        return largest if enough and self._may(largest) else BASE

    def _may(self, adapter: int) -> bool:
        """Whether an adapter has credit left to displace others."""
        return self.credit[adapter] >= -self.limit * max(len(self.credit) - 1, 1)

    def _adapt(self) -> None:
        """Move the threshold of the ending mode according to which mode completed, or would have completed, more
        requests.
        """
        merged = self.merged != BASE
        did_merged, did_unmerged = self._tried.rates(merged, self.step_s, self.times.switch_s)
        if merged:
            if did_merged > did_unmerged and self.merge_at - ADDED > self.stay_at:
                self.merge_at -= ADDED
            elif did_merged < did_unmerged:
                self.merge_at *= MULTIPLIED
        elif did_unmerged > did_merged and self.stay_at + ADDED < self.merge_at:
            self.stay_at += ADDED
        elif did_unmerged < did_merged:
            self.stay_at /= MULTIPLIED
        self._tried = _Tried()


class _Tried:
    """Actual or hypothetical batch contents of both modes since the last change."""

    def __init__(self) -> None:
        self.steps = self.switches = 0
        self.unmerged = self.merged = 0.0
        self._largest: int | None = None

    def add(self, steps: int, unmerged: float, merged: float, largest: int) -> None:
        """Record steps, with the requests in a batch of each mode; merged for the adapter with the most requests."""
        self.steps += steps
        self.unmerged += steps * unmerged
        self.merged += steps * merged
        self.switches += largest != self._largest
        self._largest = largest

    def rates(self, merged: bool, step_s: dict[bool, float], switch_s: float) -> tuple[float, float]:
        """Requests per second merged and unmerged; each change of weights counts for the mode that needs it."""
        merged_s = step_s[True] * self.steps + switch_s * (1 if merged else self.switches)
        unmerged_s = step_s[False] * self.steps + (0.0 if merged else switch_s)
        return self.merged / max(merged_s, 1e-12), self.unmerged / max(unmerged_s, 1e-12)
