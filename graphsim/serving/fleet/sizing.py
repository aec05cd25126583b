"""The cheapest fleet that keeps its limits, among all that are offered."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from math import floor, inf
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from graphsim.compile.packing import packed
from graphsim.deployment.deployment import Deployment, ModelRef
from graphsim.errors import ConfigError, InfeasibleError, choices_text
from graphsim.hardware import load_hardware
from graphsim.serving.fleet.size_choices import DEGREES, DESCRIBED, Choices, choices_of
from graphsim.serving.fleet.size_job import Bound, Question, Sized, SizeJob, bound_of, size_one
from graphsim.serving.fleet.size_kept import Kept
from graphsim.serving.fleet.size_table import Offer, size_frame, why_none
from graphsim.serving.goodput import checked_limits
from graphsim.sweeps.best import prices_of
from graphsim.sweeps.digest import digest_of
from graphsim.sweeps.workers import Workers, done_by, standing
from graphsim.traffic.traffic import Traffic
from graphsim.units import as_number, short

if TYPE_CHECKING:
    import pandas as pd

Progress = Callable[[int, str], None]
"""Called with choices done, and a line on what is done now."""

RUNNERS_UP = 5
"""Fleets behind the cheapest that are simulated even though they cost more."""
ROUND = 16
"""Choices that are simulated before others are left out because of their results: the answer does not depend on the
executor."""
LIMITS = {"ttft": "ttft_s", "tpot": "tpot_s", "e2e": "e2e_s"}


def size_fleet(
    model: ModelRef,
    traffic: Traffic,
    slo: Mapping[str, float],
    choices: Mapping[str, Any],
    *,
    price_per_hour: Mapping[str, float] | float | None = None,
    attainment: float = 0.99,
    runners_up: int = RUNNERS_UP,
    executor: Workers | None = None,
    resume: str | Path | None = None,
    progress: Progress | None = None,
    **served: Any,
) -> pd.DataFrame:
    """Find the cheapest fleet that meets the limits: devices, their number, parallelism and router.

    model: as in `serve`; traffic: the requests to the whole fleet
    slo: latency limits of a request in seconds (`ttft_s`, `tpot_s`, `e2e_s`), and `attainment` in place of that
        argument; empty where the traffic's classes have their own limits
    choices: `hardware` (required), `tp`, `pp`, `ep`, `cp`, `engine`, `precision`, `router`, `max_loras` (slots) and any
        setting of the engine by its flag, each one value or a list; `replicas`: the allowed numbers, 1 to 64 by default
    price_per_hour: of one device, as in `best`; without it, the cheapest fleet is the one with the fewest devices
    attainment: share of requests that must meet all limits
    runners_up: number of fleets after the cheapest that are simulated; choices that cannot cost less than these are
        left out
    executor: any `concurrent.futures.Executor`, or a function that creates one; it does not change the answer. Work
        that a broken executor loses is repeated by a new one, or in this process
    resume: a file of results, to resume from after an interruption; progress: called with the number of choices done
        and a line of text
    served: further arguments of `serve` (lora, limits, strategy, host, …)
    Columns: one row per choice, the cheapest first: the choices, replicas (the fewest that meet the limits, or the most
    tried if none do; 0 without a run), devices, cost_per_hour and cost_per_token with prices, attainment, throughputs,
    mean and p99 of TTFT, TPOT and E2E, limit, runs, kept, and `reason`: why it is not the first. `attrs["notes"]` holds
    caveats.
    Raises InfeasibleError if no fleet meets the limits, ConfigError for an argument that is not allowed.
    """
    choices, served = _taken_apart(choices, served)
    if price_per_hour is None:
        price_per_hour = choices.pop("price_per_hour", None)
    asked = choices_of(choices)
    limits, share = _limits(slo, attainment)
    _check_question(model, traffic, limits)
    known = {load_hardware(ref).name: ref for ref in asked.hardware}
    prices = prices_of(price_per_hour, known)
    question = Question(
        model=model, traffic=traffic, limits=limits, attainment=share, replicas=asked.replicas, served=served
    )
    digest = digest_of(question.model, traffic, limits, share, asked.rows, asked.replicas, served, runners_up)
    kept = Kept(resume, digest, len(asked.rows))
    workers, close = standing(executor)
    search = _Sizing(question, asked, prices, _at_least_one(runners_up), kept, workers, progress)
    try:
        offers = search.offers()
    finally:
        kept.close()
        close()
    if not any(offer.sized is not None and offer.sized.kept for offer in offers):
        raise InfeasibleError(why_none(question, offers))
    return size_frame(question, asked.names, offers, priced=prices is not None)


def _check_question(model: ModelRef, traffic: Traffic, limits: Mapping[str, float]) -> None:
    """Raise ConfigError for arguments that do not allow sizing."""
    if isinstance(model, Deployment):
        raise ConfigError("size_fleet: model is a Deployment, which says its device already; expected a model")
    if not isinstance(traffic, Traffic):
        raise ConfigError(
            f"size_fleet: traffic = {short(traffic)} is not a Traffic; expected gs.Traffic.poisson(…) or .from_file(…)"
        )
    if not limits and not any(_has_limit(each) for each in traffic.classes):
        raise ConfigError("size_fleet: slo has no limit to keep; expected ttft_s, tpot_s or e2e_s in seconds")


class _Sizing:
    """All choices: bounds first, then runs of the cheapest, until nothing left can be among those shown."""

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
        self.done = 0

    def offers(self) -> list[Offer]:
        """A choice each, with what came of it."""
        for job, bound in done_by(self.executor, bound_of, self._to_bound()):
            self.kept.bound(bound)
            self._tell(f"choice {job.number + 1} of {len(self.asked.rows)}: what it needs at the least")
        bounds = self.kept.bounds
        self.done = sum(bool(bound.reason) for bound in bounds.values())
        todo = sorted((self._least_cost(bound), number) for number, bound in bounds.items() if not bound.reason)
        found: dict[int, Sized] = {}
        while todo:
            most = self._cap(found)
            part, todo = todo[:ROUND], todo[ROUND:]
            worth = [number for cost, number in part if cost <= most]
            self._simulate(worth, most, found)
            if len(worth) < len(part):
                break
        return [
            Offer(
                choice=row, unit=self._unit(bounds[number]), beside=self._beside(bounds[number]),
                bound=bounds[number], sized=found.get(number), cap=self._cap(found),
            )
            for number, row in enumerate(self.asked.rows)
        ]  # fmt: skip

    def _to_bound(self) -> list[SizeJob]:
        return [
            SizeJob(question=self.sent, number=number, choice=row)
            for number, row in enumerate(self.asked.rows)
            if number not in self.kept.bounds
        ]

    def _simulate(self, numbers: list[int], most: float, found: dict[int, Sized]) -> None:
        """Search these choices, except for those that were searched before a break."""
        jobs = []
        for number in numbers:
            bound = self.kept.bounds[number]
            replicas = (most - self._beside(bound)) / self._unit(bound)
            job = SizeJob(
                question=self.sent, number=number, choice=self.asked.rows[number], least=bound.least,
                most=inf if replicas == inf else float(floor(replicas * (1.0 + 1e-9))),
            )  # fmt: skip
            known = self.kept.sized.get((number, str(job.most)))
            if known is None:
                jobs.append(job)
            else:
                found[number] = known
                self.done += 1
        for job, sized in done_by(self.executor, size_one, jobs):
            self.kept.size(sized, str(job.most))
            found[sized.number] = sized
            self.done += 1
            self._tell(f"{self.done} of {len(self.asked.rows)} choices; the cheapest costs {self._best(found)}")

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

    def _costs(self, found: Mapping[int, Sized]) -> Iterator[float]:
        for number, sized in found.items():
            if sized.kept:
                bound = self.kept.bounds[number]
                yield self._beside(bound) + self._unit(bound) * sized.replicas

    def _cap(self, found: Mapping[int, Sized]) -> float:
        """What a fleet may cost and still be among those shown."""
        costs = sorted(self._costs(found))
        return costs[self.shown] if len(costs) > self.shown else inf

    def _best(self, found: Mapping[int, Sized]) -> str:
        cheapest = min(self._costs(found), default=np.nan)
        return "nothing yet" if np.isnan(cheapest) else f"{cheapest:.4g}"

    def _tell(self, text: str) -> None:
        if self.progress is not None:
            self.progress(self.done, text)


def _taken_apart(choices: Any, served: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Choices, with the router where it stands among the arguments of `serve`; and the other arguments.

    Raises ConfigError for what is said twice or belongs to the choices.
    """
    if not isinstance(choices, Mapping):
        choices_of(choices)
    found, rest = dict(choices), dict(served)
    for name in ("replicas", "scaling"):
        if name in rest:
            raise ConfigError(f"size_fleet: {name} is what is looked for; say choices.replicas, the numbers allowed")
    for name in ("router", "view_age_s"):
        if name in rest:
            if name in found:
                raise ConfigError(f"size_fleet: {name} and choices.{name} are both given; leave one out")
            found[name] = rest.pop(name)
    twice = [name for name in DESCRIBED if name in rest and name in found]
    degrees = [name for name in DEGREES if name in found and "parallelism" in rest]
    for name, other in [*((name, name) for name in twice), *((name, "parallelism") for name in degrees)]:
        raise ConfigError(f"size_fleet: {other} and choices.{name} are both given; leave one out")
    return found, rest


def _limits(slo: Any, attainment: Any) -> tuple[dict[str, float], float]:
    """Limits by the names of `gs.capacity`, and the share of requests that must keep them."""
    if not isinstance(slo, Mapping):
        raise ConfigError(
            f"size_fleet: slo = {short(slo)} is not allowed; expected a mapping such as "
            "{'ttft_s': 0.5, 'tpot_s': 0.05}"
        )
    found: dict[str, Any] = {}
    for given, value in slo.items():
        name = LIMITS.get(str(given), str(given))
        if name == "attainment":
            attainment = value
        elif name not in LIMITS.values():
            known = (*LIMITS.values(), "attainment")
            raise ConfigError(f"size_fleet: slo.{given} is not known; {choices_text(str(given), known)}")
        elif name in found:
            raise ConfigError(f"size_fleet: slo.{name} is given twice; leave one out")
        else:
            found[name] = value
    for name, value in found.items():
        if not isinstance(as_number(value), float):
            raise ConfigError(f"size_fleet: slo.{name} = {short(value)} is not allowed; expected seconds above 0")
    checked_limits(dict(found))
    share = as_number(attainment)
    if not isinstance(share, float) or not 0.0 < share <= 1.0:
        raise ConfigError(
            f"size_fleet: attainment = {short(attainment)} is not allowed; expected a share above 0, up to 1"
        )
    return {name: float(value) for name, value in found.items()}, share


def _has_limit(each: Any) -> bool:
    return any(getattr(each, name) is not None for name in LIMITS.values())


def _at_least_one(runners_up: Any) -> int:
    if not isinstance(runners_up, int) or isinstance(runners_up, bool) or runners_up < 1:
        raise ConfigError(
            f"size_fleet: runners_up = {short(runners_up)} is not allowed; expected a whole number from 1"
        )
    return runners_up
