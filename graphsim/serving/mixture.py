"""The hottest adapter merged, the others computed with its contribution subtracted.

With W0 + B_h A_h in the weights a token of another adapter needs + B A - B_h A_h, one of the base model - B_h A_h: the
merged adapter is computed once more with the other sign. V-LoRA calls it deLoRA in its mixture mode (arXiv 2411.00915,
quoted from memory). So no request waits for a change of weights, but adapters other than the hottest are computed with
two adapters.

The price depends on how many adapters a step computes, not on their tokens: a step with other adapters is priced with
one more adapter, over all tokens. That is too much if the others have fewer than half of the tokens, and too little if
they have more; an adapter is merged only while it has more than half.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from math import exp

from graphsim.errors import ConfigError
from graphsim.serving.adapter_store import AdapterStore
from graphsim.serving.weights import Demand, Weights, WeightTimes
from graphsim.traffic.table import BASE


class Mixture(Weights):
    """Merges the adapter that recently had more than a given share of the requests; requests of all adapters run at
    any time.

    An adapter's share is that of requests waiting or running, averaged over time with older times counting less.
    """

    def __init__(
        self, times: WeightTimes, window_s: float = 60.0, merge_at: float = 0.6, unmerge_at: float = 0.5
    ) -> None:
        """window_s: time in which the weight of the past decays to 1/e; merge_at, unmerge_at: shares above which an
        adapter is merged, and below which it is unmerged.
        """
        super().__init__(times)
        if not (0.0 < unmerge_at <= merge_at <= 1.0 and window_s > 0.0):
            raise ConfigError(
                f"a mixture with merge_at {merge_at}, unmerge_at {unmerge_at} and window_s {window_s} cannot be; "
                "allowed: 0 < unmerge_at <= merge_at <= 1 and window_s above 0"
            )
        self.window_s, self.merge_at, self.unmerge_at = window_s, merge_at, unmerge_at
        self._load: defaultdict[int, float] = defaultdict(float)
        self._now: dict[int, int] = {}
        self._since = 0.0

    def plan(self, now: float, demand: Demand, store: AdapterStore) -> float:
        """Track the demand, and change the weights when another adapter becomes the hottest."""
        self._look(now, demand)
        total = sum(self._load.values())
        if not total:
            return 0.0
        hottest = max(self._load, key=lambda adapter: (self._load[adapter], -adapter))
        share = {adapter: load / total for adapter, load in self._load.items()}
        wanted = self.merged
        if hottest != self.merged and share[hottest] >= self.merge_at:
            wanted = hottest
        elif self.merged != BASE and share.get(self.merged, 0.0) < self.unmerge_at:
            wanted = BASE
        running = {adapter for adapter, count in demand.running.items() if count and adapter != BASE}
        if wanted == self.merged or not self._fits(wanted, running, now, store):
            return 0.0
        seconds = self._change(wanted, now, store, running)
        store.keep(() if wanted == BASE else (wanted,))
        return seconds

    def _fits(self, wanted: int, running: Collection[int], now: float, store: AdapterStore) -> bool:
        """Whether it gets a slot in addition to those of the running ones, and leaves one for others."""
        if wanted == BASE:
            return True
        old = set() if self.merged == BASE else {self.merged}
        pinned = {*store.rules.pinned, wanted}
        return len(pinned) < store.rules.max_loras and store.room_for(wanted, {*running, *old}, now)

    def beside(self, used: Collection[int]) -> int:
        """The other adapters, and the merged one with the opposite sign if there are others."""
        others = set(used) - {self.merged}
        if self.merged == BASE or not others:
            return super().beside(others)
        return len(others - {BASE}) + 1

    def _look(self, now: float, demand: Demand) -> None:
        """Add the contents of queue and batch since the last check."""
        fading = exp(-(now - self._since) / self.window_s)
        for adapter in {*self._load, *self._now}:
            self._load[adapter] = self._load[adapter] * fading + self._now.get(adapter, 0) * (1.0 - fading)
        self._now = {adapter: demand.of(adapter) for adapter in demand.adapters}
        self._since = now
