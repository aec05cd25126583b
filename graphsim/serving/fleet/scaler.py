"""Replicas that start and stop while a fleet runs."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

from graphsim.serving.fleet.scaling import Scaling


class Scaler:
    """Which replicas take requests. next_s: when to decide, or a replica is ready.

    serving: numbers of replicas that take requests; spans: of each replica, when it was started and when it was empty
    after it had been taken away (inf: never)
    """

    def __init__(self, scaling: Scaling, replicas: int, cold_start_s: float) -> None:
        self._scaling, self._cold_s = scaling, cold_start_s
        self.serving = list(range(replicas))
        self._starting: list[tuple[float, int]] = []
        self._leaving: set[int] = set()
        self.spans: list[list[float]] = [[0.0, inf] for _ in range(replicas)]
        self._decide_s = scaling.every_s
        self._enough: list[tuple[float, int]] = []  # recently wanted numbers
        self.next_s = scaling.every_s
        self.history: list[tuple[float, int]] = [(0.0, replicas)]

    def decide(self, loads: Sequence[int]) -> bool:
        """Whether to start one more replica now; called until it returns False.

        loads: requests running and waiting of each replica
        """
        now = self.next_s
        self._ready(now)
        for number in [number for number in self._leaving if not loads[number]]:
            self._leaving.remove(number)
            self.spans[number][1] = now
        if now >= self._decide_s:
            there = len(self.serving) + len(self._starting)
            wanted = self._wanted(now, sum(loads))
            if wanted > there:
                if self._back(now):
                    return self.decide(loads)
                self._start(now)
                return True
            self._stop(now, there - wanted, loads)
            self._decide_s = now + self._scaling.every_s
        self.next_s = min([self._decide_s, *(ready for ready, _ in self._starting)])
        return False

    def _wanted(self, now: float, load: int) -> int:
        """The largest number wanted within the calm time, or now."""
        there = len(self.serving) + len(self._starting)
        if not self._enough or self._enough[-1][0] < now:
            self._enough.append((now, self._scaling.wanted(max(len(self.serving), 1), load)))
        self._enough = [(at, wanted) for at, wanted in self._enough if at > now - self._scaling.calm_s or at == now]
        wanted = self._enough[-1][1]
        return wanted if wanted >= there else max(wanted, max(each for _, each in self._enough))

    def _ready(self, now: float) -> None:
        for ready, number in [entry for entry in self._starting if entry[0] <= now]:
            self._starting.remove((ready, number))
            self.serving.append(number)
            self.history.append((now, len(self.serving)))

    def _back(self, now: float) -> bool:
        """Reactivate a stopped replica that is not empty yet."""
        if not self._leaving:
            return False
        number = max(self._leaving)
        self._leaving.remove(number)
        self.serving.append(number)
        self.history.append((now, len(self.serving)))
        return True

    def _start(self, now: float) -> None:
        number = len(self.spans)
        self.spans.append([now, inf])
        self._starting.append((now + self._cold_s, number))

    def _stop(self, now: float, count: int, loads: Sequence[int]) -> None:
        """Stop the least loaded replicas; at least one stays."""
        for _ in range(min(count, len(self.serving) - 1)):
            number = min(self.serving, key=lambda number: (loads[number], -number))
            self.serving.remove(number)
            self._leaving.add(number)
            self.history.append((now, len(self.serving)))
