"""One choice of a fleet as one unit of work: the fewest replicas that keep the limits, found by any process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from math import ceil, inf
from typing import Any

import numpy as np

from graphsim.compile.packing import unpacked
from graphsim.deployment.arguments import deployed
from graphsim.deployment.deployment import DEFAULT_ENGINE
from graphsim.deployment.parallelism import Parallelism
from graphsim.errors import GraphsimError
from graphsim.serving.capacity_runs import limits_text
from graphsim.serving.disaggregated.scenario import DisaggregatedServing
from graphsim.serving.engine_limits import EngineLimits
from graphsim.serving.fleet.size_bounds import least_replicas, prompts_never, why_never
from graphsim.serving.fleet.size_choices import DEGREES, DESCRIBED, PREFILL, SERVED
from graphsim.serving.scenario import Serving
from graphsim.serving.serve import serving_of
from graphsim.sweeps.digest import digest_of
from graphsim.symbolic.memo import Memo
from graphsim.traffic.traffic import Traffic

FIGURES = (
    "request_throughput", "output_throughput", "mean_ttft_ms", "p99_ttft_ms", "mean_tpot_ms", "p99_tpot_ms",
    "mean_e2el_ms", "p99_e2el_ms",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """The question for every choice.

    limits: in seconds, none for those of the traffic's classes
    attainment: share of requests that must keep them
    replicas: bounds of their number
    served: further arguments of `serve`
    """

    model: Any
    traffic: Traffic
    limits: Mapping[str, float]
    attainment: float
    replicas: tuple[int, ...]
    served: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class SizeJob:
    """One choice. question: pickled, the same bytes for all; number: of the choice; most: the largest number of
    replicas worth trying
    """

    question: bytes
    number: int
    choice: Mapping[str, Any]
    least: int = 1
    most: float = inf


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """Lower bounds of a choice.

    devices: of one replica
    beside: of all workers that only compute prompts, however many replicas there are
    reason: why it is infeasible, or empty
    """

    number: int
    devices: int
    least: int
    reason: str
    beside: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class SizeResult:
    """The result of a choice.

    replicas: the fewest that keep the limits, or the most that were tried
    kept: whether they do
    attainment, figures: of the run with these
    runs: how many there were
    reason: why it is infeasible
    """

    number: int
    replicas: int
    kept: bool
    attainment: float
    figures: Mapping[str, float]
    limit: str
    runs: int
    reason: str = ""


def bounds_of(jobs: Sequence[SizeJob]) -> list[Bound]:
    """Told without a run, for several choices; what cannot be run at all says why."""
    return [_bound_of(job) for job in jobs]


def _bound_of(job: SizeJob) -> Bound:
    """Choices whose replicas are alike have the same bound, unless a router is refused."""
    question = _question(job.question)
    try:
        server = _server(job, question)
        found = _bounds.get(_alike(job), lambda: _bound(server, question))
    except GraphsimError as error:
        return Bound(number=job.number, devices=1, least=1, reason=str(error))
    return replace(found, number=job.number)


def _bound(server: Serving, question: Question) -> Bound:
    devices, beside, prompts = int(server.deployment.parallelism.devices), 0, None
    if isinstance(server, DisaggregatedServing):
        prompts = server.prompts
        beside = server.prefill_replicas * int(prompts.deployment.parallelism.devices)
    reason = why_never(server, question.limits, question.attainment, prompts)
    if not reason and isinstance(server, DisaggregatedServing):
        reason = prompts_never(server.prompts, server.prefill_replicas, question.limits, question.attainment)
    least = 1 if reason else least_replicas(server, question.limits, question.attainment, apart=bool(beside))
    return Bound(number=0, devices=devices, least=least, reason=reason, beside=beside)


def size_all(jobs: Sequence[SizeJob]) -> list[SizeResult]:
    """The fewest replicas of each of several choices."""
    return [size_one(job) for job in jobs]


def size_one(job: SizeJob) -> SizeResult:
    """The fewest replicas of a choice that keep the limits, between `least` and `most`."""
    question = _question(job.question)
    try:
        return _Search(question, job).found()
    except GraphsimError as error:
        return SizeResult(
            number=job.number, replicas=0, kept=False, attainment=float("nan"), figures={}, limit="", runs=0,
            reason=str(error),
        )  # fmt: skip


def _server(job: SizeJob, question: Question) -> Serving:
    """One replica of a job's choice behind its router; choices that differ in the router alone share its prices."""
    choice, apart = job.choice, _is_apart(job)
    found = _servers.get(_alike(job), lambda: _priced(serving(question, _without_router(job))))
    return found if apart else found.with_fleet(**{name: choice[name] for name in ROUTING if name in choice})


def _is_apart(job: SizeJob) -> bool:
    return bool(job.choice.get("prefill_replicas"))


def _without_router(job: SizeJob) -> dict[str, Any]:
    """The choice as far as one replica depends on it."""
    return {name: value for name, value in job.choice.items() if _is_apart(job) or name not in ROUTING}


def _alike(job: SizeJob) -> tuple[bytes, str]:
    """The same for choices whose replicas are alike."""
    return job.question, digest_of(_without_router(job))


def _priced(server: Serving) -> Serving:
    """The server with everything that its copies share precomputed."""
    for one in (server, server.prompts) if isinstance(server, DisaggregatedServing) else (server,):
        _ = one.table, one.rules, one.price
    return server


ROUTING = ("router", "view_age_s")
_servers: Memo[Serving] = Memo(most=256)
_bounds: Memo[Bound] = Memo(most=256)


def serving(question: Question, choice: Mapping[str, Any]) -> Serving:
    """One replica of a choice, behind its router. Raises ConfigError as `serve` does."""
    degrees = {name: choice[name] for name in DEGREES if name in choice}
    described = {name: choice[name] for name in DESCRIBED if name in choice}
    named = {name: choice[name] for name in SERVED if name in choice}
    own = {"hardware", *DEGREES, *DESCRIBED, *SERVED, *PREFILL}
    limits = {name: value for name, value in choice.items() if name not in own}
    given: dict[str, Any] = dict(question.served) | described | named
    if degrees:
        given["parallelism"] = Parallelism(**degrees)
    if choice.get("prefill_replicas"):
        given |= _prefill(question.model, choice, given)
    base: EngineLimits = given.pop("limits", None) or EngineLimits()
    slots = limits.pop("max_loras", None)
    found = serving_of(question.model, choice["hardware"], question.traffic, limits=base.but(**limits), **given)
    return found if slots is None or not found.adapters else found.with_slots(int(slots))


def _prefill(model: Any, choice: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """A prefill worker: like a replica except for the given settings, with the same adapters."""
    degrees = given.get("parallelism") or Parallelism()
    if choice.get("prefill_tp"):
        degrees = replace(degrees, tp=choice["prefill_tp"])
    described = {name: given[name] for name in DESCRIBED if name in given}
    worker = deployed(
        model, choice.get("prefill_hardware") or choice["hardware"], parallelism=degrees,
        default_engine=DEFAULT_ENGINE, **described,
    )  # fmt: skip
    return {"prefill": worker, "prefill_replicas": choice["prefill_replicas"]}


class _Search:
    """The runs of one choice: upwards from the least number, guided by the last run, then bisection."""

    def __init__(self, question: Question, job: SizeJob) -> None:
        self.question, self.job = question, job
        self.server = _server(job, question)
        self.allowed = [n for n in question.replicas if n <= job.most]
        self.apart = isinstance(self.server, DisaggregatedServing)
        self.tried: dict[int, SizeResult] = {}

    def found(self) -> SizeResult:
        """The fewest that keep the limits, else the most that were tried."""
        if not self.allowed:
            least = self.question.replicas[0]
            return self._nothing(f"no fewer than {least} replicas are allowed, which cost more than others")
        low, high = -1, len(self.allowed)
        at = next((i for i, n in enumerate(self.allowed) if n >= self.job.least), len(self.allowed) - 1)
        while low < at < high:
            run = self._run(self.allowed[at])
            if run.kept:
                high = at
                at = at - 1 if low < 0 else (low + at) // 2
            else:
                helped = low < 0 or run.attainment > self.tried[self.allowed[low]].attainment
                low = at
                if not helped and self.apart:  # the prompts are late, regardless of the decode workers
                    break
                at = self._further(at) if high == len(self.allowed) else (at + high) // 2
        return self.tried[self.allowed[high if high < len(self.allowed) else max(low, 0)]]

    def _further(self, at: int) -> int:
        """The next number to try above one that fails: from its throughput, or half as many again."""
        now = self.allowed[at]
        run = self.tried[now]
        offered, served = self.question.traffic.request_rate, run.figures.get("request_throughput", 0.0)
        wanted = now * 1.5
        if offered is not None and 0.0 < served < 0.9 * offered < inf:
            wanted = max(min(now * offered / served, 4.0 * now), now + 1.0)
        if at == len(self.allowed) - 1:
            return len(self.allowed)
        return next((i for i, n in enumerate(self.allowed) if n >= ceil(wanted) and i > at), len(self.allowed) - 1)

    def _run(self, replicas: int) -> SizeResult:
        if replicas in self.tried:
            return self.tried[replicas]
        service = self._of(replicas).run()
        if service.log.interrupted:
            raise KeyboardInterrupt
        share = float(service.goodput(**self.question.limits).share)
        figures = service.summary((99.0,))
        self.tried[replicas] = SizeResult(
            number=self.job.number, replicas=replicas, kept=share >= self.question.attainment, attainment=share,
            figures={name: float(figures[name]) for name in FIGURES if not np.isnan(float(figures[name]))},
            limit=self.server.seen(service).limit, runs=len(self.tried) + 1,
        )  # fmt: skip
        return self.tried[replicas]

    def _of(self, replicas: int) -> Serving:
        """The server with this number of replicas, which are decode workers if prompts have separate workers."""
        server = self.server
        if isinstance(server, DisaggregatedServing):
            return server._but("table", "rules", "price", "prompts", replicas=replicas)
        return server.with_fleet(replicas=replicas)

    def _nothing(self, reason: str) -> SizeResult:
        return SizeResult(
            number=self.job.number, replicas=0, kept=False, attainment=float("nan"), figures={}, limit="",
            runs=len(self.tried), reason=reason,
        )  # fmt: skip


@lru_cache(maxsize=2)
def _question(pickled: bytes) -> Question:
    """The same objects for every choice, so that traffic is drawn once in a process."""
    found: Question = unpacked(pickled, "size_fleet")
    return found


def missed(question: Question, found: SizeResult) -> str:
    """The limits that a choice misses with the most replicas allowed."""
    many = "1 replica" if found.replicas == 1 else f"{found.replicas} replicas"
    return (
        f"{found.attainment:.1%} of the requests keep {limits_text(question.limits)} with {many}, "
        f"{question.attainment:.1%} must"
    )
