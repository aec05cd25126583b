"""The runs of a search for capacity: the same requests faster or slower, or over more or fewer adapters."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from graphsim.serving.bottlenecks import Bottlenecks
from graphsim.serving.scenario import Serving
from graphsim.serving.search import Search, Trial
from graphsim.serving.service import Service
from graphsim.units import seconds_text

if TYPE_CHECKING:
    import pandas as pd

SLOWEST = 1024.0
"""How many times slower than asked a rate is tried before it is said that none keeps the limits."""
AT_ONCE = 0.01
"""Part of a run in which all its requests arrive, below which still faster ones change nothing."""
PARALLEL = 3
"""Trials at a time where there is an executor: each round narrows the bracket to a quarter."""
TOLERANCE = 0.02
BELOW_SERVED = 0.9
"""Of what an overloaded server gets done per second: about where its queue begins to grow."""
OVERLOADED = 0.75
"""Of the rate that was asked for: a server that gets less than that done, as above, is overloaded."""
SHORT_RUN = 3.0
"""Times the usual request's stay that arrivals have to last, so that a queue has the time to grow."""
FIGURES = (
    "request_throughput", "output_throughput", "mean_ttft_ms", "p99_ttft_ms", "mean_tpot_ms", "p99_tpot_ms",
    "mean_e2el_ms", "p99_e2el_ms",
)  # fmt: skip
"""Of `vllm bench serve`'s result file, what a row of tried values shows."""

Progress = Callable[[int, str], None]
"""Called with the number of runs so far and a line on the last one."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Job:
    """One run, as it may go to another process."""

    serving: Serving
    limits: Mapping[str, float]
    value: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Run:
    """What came of one. arrivals_s: how long requests arrived; end_s: when the last was answered; stay_s: of one."""

    value: float
    attainment: float
    figures: dict[str, float]
    seen: Bottlenecks
    arrivals_s: float
    end_s: float
    stay_s: float


def run_job(job: Job) -> tuple[Run, Service]:
    """The run, and the service for who wants to look at it."""
    service = job.serving.run()
    if service.log.interrupted:
        raise KeyboardInterrupt
    figures, sent, seen = service.summary(), service.log.sent_s, job.serving.seen(service)
    run = Run(
        value=job.value, attainment=attained(service, job.limits),
        figures={name: float(figures[name]) for name in FIGURES if name in figures}, seen=seen,
        arrivals_s=float(np.nanmax(sent)) if np.isfinite(sent).any() else 0.0, end_s=service.log.end_s,
        stay_s=sum(seen.spent.values()),
    )  # fmt: skip
    return run, service


def run_apart(job: Job) -> Run:
    """The run alone, which is all that comes back from another process."""
    return run_job(job)[0]


def attained(service: Service, limits: Mapping[str, float]) -> float:
    """Share of all requests that keep the limits; those of their classes where none are given."""
    return float(service.goodput(**limits).share)


def limits_text(limits: Mapping[str, float]) -> str:
    """Limits as people read them: `TTFT 500 ms, TPOT 50 ms`."""
    told = [f"{name.removesuffix('_s').upper()} {seconds_text(value)}" for name, value in limits.items()]
    return ", ".join(told) or "the limits of its class"


@dataclass(slots=True, kw_only=True, eq=False)
class Runs:
    """The runs of one search. over: `rate` or `adapters`; best: the highest that kept the limits here, if any."""

    serving: Serving
    limits: Mapping[str, float]
    attainment: float
    over: str
    executor: Executor | None = None
    progress: Progress | None = None
    done: dict[float, Run] = field(default_factory=dict)
    best: tuple[float, Service] | None = None

    @property
    def what(self) -> str:
        """What is raised: `rate`, `concurrency` or `adapters`."""
        return "concurrency" if self.over == "rate" and self.serving.traffic.concurrency else self.over

    def search(self) -> Search:
        """Where it starts and where it ends."""
        width = 1 if self.executor is None else PARALLEL
        requests = float(len(self.serving.table))
        if self.what == "rate":
            rate = self.serving.rate
            return Search(start=rate, least=rate / SLOWEST, tolerance=TOLERANCE, width=width)
        now = self.serving.traffic.concurrency if self.what == "concurrency" else self.serving.adapters
        start = float(max(now or 1, 1))
        return Search(start=start, least=1.0, most=max(requests, start), whole=True, width=width)

    def at(self, value: float) -> Serving:
        """The server with the traffic that a value stands for."""
        if self.what == "rate":
            return self.serving.faster(value / self.serving.rate)
        if self.what == "concurrency":
            return self.serving.with_concurrency(int(value))
        return self.serving.with_adapters(int(value))

    def trials(self, values: Sequence[float]) -> Iterable[Trial]:
        """Run the server at each of these values."""
        for run in self._runs([Job(serving=self.at(value), limits=self.limits, value=value) for value in values]):
            self.done[run.value] = run
            if self.progress is not None:
                self.progress(
                    len(self.done), f"{value_text(self.what, run.value)}: {run.attainment:.1%} keep the limits"
                )
            holds = run.attainment >= self.attainment
            rated = self.what == "rate"
            served = BELOW_SERVED * run.figures["request_throughput"]
            near = served if rated and not holds and served < OVERLOADED * run.value else None
            yield Trial(holds=holds, near=near, last=rated and run.arrivals_s < AT_ONCE * run.end_s)

    def _runs(self, jobs: Sequence[Job]) -> Iterator[Run]:
        if self.executor is not None:
            yield from self.executor.map(run_apart, jobs)
            return
        for job in jobs:
            run, service = run_job(job)
            if run.attainment >= self.attainment and (self.best is None or run.value > self.best[0]):
                self.best = run.value, service
            yield run

    def service_at(self, value: float) -> Service:
        """The run at a value, once more where it was in another process or given up."""
        if self.best is not None and self.best[0] == value:
            return self.best[1]
        return run_job(Job(serving=self.at(value), limits=self.limits, value=value))[1]

    def frame(self) -> pd.DataFrame:
        """One row per run, in the order of the values."""
        import pandas as pd

        rows = [
            {self.what: run.value, "kept": run.attainment >= self.attainment, "attainment": run.attainment}
            | run.figures | {"limit": run.seen.limit}
            for run in sorted(self.done.values(), key=lambda run: run.value)
        ]  # fmt: skip
        return pd.DataFrame(rows)

    def why_none(self) -> str:
        """One sentence: how far the limits are missed even at the least."""
        run = self.done[min(self.done)]
        ttft, tpot, e2e = (run.figures[f"mean_{name}_ms"] / 1e3 for name in ("ttft", "tpot", "e2el"))
        return (
            f"nothing keeps {limits_text(self.limits)} for {self.attainment:.4g} of the requests: at "
            f"{value_text(self.what, run.value)} {run.attainment:.1%} do, with a mean TTFT of {seconds_text(ttft)}, "
            f"TPOT of {seconds_text(tpot)} and E2E of {seconds_text(e2e)}"
        )

    def notes(self, search: Search) -> Iterator[str]:
        """Caveats on the answer."""
        found = search.holding
        run = self.done[found] if found is not None else None
        if search.is_open and self.what == "rate":
            yield (
                f"the limits are kept even where all {len(self.serving.table):,} requests come at once: they are too "
                "few to fill the server; more of them (--requests) may find an end"
            )
        elif search.is_open:
            yield f"the limits are kept up to {value_text(self.what, max(search.tried))}, as many as there are requests"
        elif run is not None and self.what == "rate" and run.arrivals_s < SHORT_RUN * run.stay_s:
            yield (
                f"requests arrive for {seconds_text(run.arrivals_s)} only, and one stays {seconds_text(run.stay_s)}: a "
                "longer run would build a longer queue and find a lower rate"
            )
        if not search.is_monotone:
            again = min(
                value for value, trial in search.tried.items() if trial.holds and value > (search.failing or 0.0)
            )
            yield (
                f"the limits fail at {value_text(self.what, search.failing or 0.0)} and are kept again at "
                f"{value_text(self.what, again)}: more requests would tell luck from capacity"
            )


def value_text(over: str, value: float) -> str:
    """A value as people read it: `7.42 requests/s`."""
    one = value == 1.0 and over != "rate"
    unit = {"rate": "requests/s", "concurrency": "requests in flight", "adapters": "adapters"}[over]
    if one:
        unit = {"concurrency": "request in flight", "adapters": "adapter"}[over]
    return f"{value:.3g} {unit}" if over == "rate" and value < 100.0 else f"{value:,.0f} {unit}"
