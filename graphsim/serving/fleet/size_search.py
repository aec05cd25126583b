"""The search for a fleet: bounds of all choices first, then runs of the cheapest, here or by an executor."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from math import floor, inf

import numpy as np

from graphsim.compile.packing import packed
from graphsim.hardware import load_hardware
from graphsim.serving.fleet.size_choices import Choices
from graphsim.serving.fleet.size_job import Bound, Question, SizeJob, SizeResult, bounds_of, size_all
from graphsim.serving.fleet.size_kept import Kept
from graphsim.serving.fleet.size_order import DEPLOYMENT, PRICES, groups_of, pieces_of, rounds_of
from graphsim.serving.fleet.size_table import Offer
from graphsim.sweeps.workers import Workers, done_by, hands

Progress = Callable[[int, str], None]
"""Called with choices done, and a line on what is done now."""


class SizeSearch:
    """All choices: bounds first, then runs of the cheapest, until nothing left can be among those shown.

    A choice may cost as much as the rounds before the last one allow: two rounds are in work at a time, so that no
    process waits for the end of one, and the answer does not depend on the executor.
    """

    def __init__(
        self, question: Question, asked: Choices, prices: Mapping[str, float] | None, shown: int, kept: Kept,
        executor: Workers | None, progress: Progress | None,
    ) -> None:  # fmt: skip
        self.question, self.asked, self.shown = question, asked, shown
        self.kept, self.executor, self.progress = kept, executor, progress
        self.sent = packed(question, "size_fleet")
        names = {str(ref): load_hardware(ref).name for ref in asked.hardware}
        self.each = [1.0 if prices is None else prices[names[str(row["hardware"])]] for row in asked.rows]
        self.ahead = [
            1.0 if prices is None else prices[names[str(row.get("prefill_hardware") or row["hardware"])]]
            for row in asked.rows
        ]
        self.groups = groups_of(asked.rows, PRICES)
        self.found: dict[int, SizeResult] = {}
        self.done = 0

    def offers(self) -> list[Offer]:
        """A choice each, with what came of it."""
        self._bound_all()
        bounds = self.kept.bounds
        self.done = sum(bool(bound.reason) for bound in bounds.values())
        self._simulate(rounds_of(self._by_cost(), self.groups))
        cap = self._cap(self.found)
        return [
            Offer(
                choice=row, unit=self._unit(bounds[number]), beside=self._beside(bounds[number]),
                bound=bounds[number], sized=self.found.get(number), cap=cap,
            )
            for number, row in enumerate(self.asked.rows)
        ]  # fmt: skip

    def _bound_all(self) -> None:
        jobs = [
            SizeJob(question=self.sent, number=number, choice=row)
            for number, row in enumerate(self.asked.rows)
            if number not in self.kept.bounds
        ]
        groups = groups_of(self.asked.rows, DEPLOYMENT)
        for piece, found in done_by(self.executor, bounds_of, self._pieces(jobs, groups, 1)):
            for bound in found:
                self.kept.bound(bound)
            self._tell(f"choice {piece[-1].number + 1} of {len(self.asked.rows)}: what it needs at the least")

    def _by_cost(self) -> list[int]:
        """Choices that may keep the limits, by what they cost at least; of these alike, groups together."""
        bounds = self.kept.bounds
        todo = [number for number, bound in bounds.items() if not bound.reason]
        return sorted(todo, key=lambda number: (self._least_cost(bounds[number]), self.groups[number], number))

    def _simulate(self, rounds: Sequence[Sequence[int]]) -> None:
        """Search the choices of round after round, until one is left out for its cost."""
        queue = deque[tuple[SizeJob, ...]]()
        due = self._due(rounds)
        queue.extend(next(due, ()))
        for piece, found in done_by(self.executor, size_all, queue):
            for job, sized in zip(piece, found, strict=True):
                self.kept.size(sized, str(job.most))
                self.found[sized.number] = sized
                self.done += 1
            self._tell(f"{self.done} of {len(self.asked.rows)} choices; the cheapest costs {self._best()}")
            queue.extend(next(due, ()))

    def _due(self, rounds: Sequence[Sequence[int]]) -> Iterator[list[tuple[SizeJob, ...]]]:
        """Each time, the pieces of work that what was found has made possible."""
        new: list[tuple[SizeJob, ...]] = []
        for i, numbers in enumerate(rounds):
            before = [number for each in rounds[: max(i - 1, 0)] for number in each]
            while any(number not in self.found for number in before):
                yield new
                new = []
            most = self._cap({number: self.found[number] for number in before})
            worth = [number for number in numbers if self._least_cost(self.kept.bounds[number]) <= most]
            jobs = [job for job in (self._job(number, most) for number in worth) if not self._known(job)]
            new += self._pieces(jobs, self.groups, 2)
            if len(worth) < len(numbers):
                break
        yield new

    def _job(self, number: int, most: float) -> SizeJob:
        bound = self.kept.bounds[number]
        replicas = (most - self._beside(bound)) / self._unit(bound)
        return SizeJob(
            question=self.sent, number=number, choice=self.asked.rows[number], least=bound.least,
            most=inf if replicas == inf else float(floor(replicas * (1.0 + 1e-9))),
        )  # fmt: skip

    def _known(self, job: SizeJob) -> bool:
        """Whether it was searched before a break; what was found then counts."""
        known = self.kept.sized.get((job.number, str(job.most)))
        if known is not None:
            self.found[job.number] = known
            self.done += 1
        return known is not None

    def _pieces(self, jobs: Sequence[SizeJob], groups: Sequence[int], rounds: int) -> list[tuple[SizeJob, ...]]:
        """Work for one process each; here, one choice after another, so that a break loses one alone."""
        if self.executor is None or not jobs:
            return [(job,) for job in jobs]
        return pieces_of(jobs, lambda job: groups[job.number], -(-hands(self.executor) // rounds))

    def _unit(self, bound: Bound) -> float:
        """What one replica costs an hour, or its devices where there are no prices."""
        return bound.devices * self.each[bound.number]

    def _beside(self, bound: Bound) -> float:
        """What its prefill workers cost an hour, or their devices."""
        return bound.beside * self.ahead[bound.number]

    def _least_cost(self, bound: Bound) -> float:
        allowed = self.question.replicas
        least = next((n for n in allowed if n >= bound.least), allowed[-1])
        return self._beside(bound) + self._unit(bound) * least

    def _costs(self, found: Mapping[int, SizeResult]) -> Iterator[float]:
        for number, sized in found.items():
            if sized.kept:
                bound = self.kept.bounds[number]
                yield self._beside(bound) + self._unit(bound) * sized.replicas

    def _cap(self, found: Mapping[int, SizeResult]) -> float:
        """What a fleet may cost and still be among those shown."""
        costs = sorted(self._costs(found))
        return costs[self.shown] if len(costs) > self.shown else inf

    def _best(self) -> str:
        cheapest = min(self._costs(self.found), default=np.nan)
        return "nothing yet" if np.isnan(cheapest) else f"{cheapest:.4g}"

    def _tell(self, text: str) -> None:
        if self.progress is not None:
            self.progress(self.done, text)
