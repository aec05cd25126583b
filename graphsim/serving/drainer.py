"""Draining of running adapters in favour of starving ones, as in SGLang.

Source: SGLang, `srt/lora/lora_drainer.py` (pull request 17913). While all places of a batch are taken, an adapter whose
longest wait exceeds a limit is starving. For each such one, longest wait first, the running adapter that will be done
first (the one whose most remaining output tokens are fewest) is drained: it takes only requests that end about when it
would anyway, until its last one has left the batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import inf

TOLERANCE = 1.2
"""Factor by which a new request of a drained adapter may exceed its last remaining one (DRAIN_SCHEDULE_TOLERANCE
there).
"""


class Drainer:
    """Which running adapters are being drained, and for which starving adapter.

    A loop calls `update` before its admissions whenever a request has arrived or left, and at `next_s`; then it asks
    `admits` for each waiting request. Base requests count as an adapter (BASE), as in SGLang.
    """

    def __init__(self, places: int, after_s: float) -> None:
        """places: adapters of a batch (max_loras_per_batch); after_s: waiting time from which one starves."""
        self.places, self.after_s = places, after_s
        self._for: dict[int, int] = {}  # drained adapter -> the starving one
        self._remaining: dict[int, int] = {}

    @property
    def drained(self) -> Mapping[int, int]:
        """The adapters that are being drained, each with the starving one."""
        return self._for

    def update(self, now: float, waiting_since: Mapping[int, float], remaining: Mapping[int, int]) -> None:
        """Update from queue and batch.

        waiting_since: for each adapter with queued requests, when the first of these was queued
        remaining: for each adapter in the batch, the most output tokens that one of its requests still generates
        """
        self._remaining = dict(remaining)
        if len(remaining) >= self.places:
            self._drain(now, waiting_since)
        self._for = {drained: starving for drained, starving in self._for.items() if drained in remaining}

    def _drain(self, now: float, waiting_since: Mapping[int, float]) -> None:
        helped = set(self._for.values())
        starving = [adapter for adapter in self.starving(now, waiting_since) if adapter not in helped]
        eligible = set(self._remaining) - set(self._for)
        for adapter in sorted(starving, key=lambda a: (waiting_since[a], a)):
            if not eligible:
                break
            drained = min(eligible, key=lambda a: (self._remaining[a], a))
            self._for[drained] = adapter
            eligible.remove(drained)

    def starving(self, now: float, waiting_since: Mapping[int, float]) -> list[int]:
        """Adapters whose first request has waited for longer than the limit."""
        return [adapter for adapter, since in waiting_since.items() if now - since > self.after_s]

    def admits(self, adapter: int, output_tokens: int) -> bool:
        """Whether a request of an adapter, with this many output tokens at most, may join the batch."""
        return adapter not in self._for or output_tokens <= TOLERANCE * self._remaining[adapter]

    def next_s(self, now: float, waiting_since: Mapping[int, float]) -> float:
        """When the next waiting adapter begins to starve; inf if none will."""
        begins = (since + self.after_s for since in waiting_since.values())
        return min((begin for begin in begins if begin > now), default=inf)
