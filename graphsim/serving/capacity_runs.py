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
from graphsim.units import amount_text, seconds_text

if TYPE_CHECKING:
    import pandas as pd

SLOWEST = 1024.0
"""Factor by which the requested rate is reduced before the search gives up."""
AT_ONCE = 0.01
"""Share of a run in which all its requests arrive, below which a higher rate changes nothing."""
PARALLEL = 3
"""Trials at a time where there is an executor: each round narrows the bracket to a quarter."""
TOLERANCE = 0.02
BELOW_SERVED = 0.9
"""Share of an overloaded server's throughput at which its queue roughly begins to grow."""
OVERLOADED = 0.75
"""Share of the offered rate below which a server's throughput means that it is overloaded."""
SHORT_RUN = 3.0
"""Multiple of the typical request's duration for which arrivals must last, so that a queue has time to grow."""
FIGURES = (
    "request_throughput", "output_throughput", "mean_ttft_ms", "p99_ttft_ms", "mean_tpot_ms", "p99_tpot_ms",
    "mean_e2el_ms", "p99_e2el_ms",
)  # fmt: skip
"""Figures of `vllm bench serve`'s result file in a row of tried values."""

Progress = Callable[[int, str], None]
"""Called with the number of runs so far and a line on the last one."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Job:
    """One run, in a form that can be sent to another process."""

    serving: Serving
    limits: Mapping[str, float]
    value: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Run:
    """The outcome of a run. arrivals_s: duration of the arrivals; end_s: time of the last answer; stay_s: mean
    duration of a request.
    """

    value: float
    attainment: float
    figures: dict[str, float]
    seen: Bottlenecks
    arrivals_s: float
    end_s: float
    stay_s: float


def run_job(job: Job) -> tuple[Run, Service]:
    """The run, and its service for inspection."""
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
    """The run without its service, as returned from another process."""
    return run_job(job)[0]


def attained(service: Service, limits: Mapping[str, float]) -> float:
    """Share of all requests that keep the limits; those of their classes where none are given."""
    return float(service.goodput(**limits).share)


def limits_text(limits: Mapping[str, float]) -> str:
    """Limits as text: `TTFT 500 ms, TPOT 50 ms`."""
    told = [f"{name.removesuffix('_s').upper()} {seconds_text(value)}" for name, value in limits.items()]
    return ", ".join(told) or "the limits of its class"


@dataclass(slots=True, kw_only=True, eq=False)
class Runs:
    """The runs of one search.

    over: `rate` or `adapters`
    best: the highest that kept the limits here, if any
    """

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
        """The quantity that is increased: `rate`, `concurrency` or `adapters`."""
        return "concurrency" if self.over == "rate" and self.serving.traffic.concurrency else self.over

    def search(self) -> Search:
        """The parameters of the search."""
        width = 1 if self.executor is None else PARALLEL
        requests = float(len(self.serving.table))
        if self.what == "rate":
            rate = self.serving.rate
            return Search(start=rate, least=rate / SLOWEST, tolerance=TOLERANCE, width=width)
        now = self.serving.traffic.concurrency if self.what == "concurrency" else self.serving.adapters
        start = float(max(now or 1, 1))
        return Search(start=start, least=1.0, most=max(requests, start), whole=True, width=width)

    def at(self, value: float) -> Serving:
        """The server with the traffic for a value."""
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
        """The run at a value, repeated if it ran in another process or was dropped."""
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
        """One sentence: by how much the limits are missed even at the lowest value."""
        run = self.done[min(self.done)]
        ttft, tpot, e2e = (run.figures[f"mean_{name}_ms"] / 1e3 for name in ("ttft", "tpot", "e2el"))
        return (
            f"nothing keeps {limits_text(self.limits)} for {amount_text(self.attainment, 'share')} of the requests: at "
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
                "few to fill the server; more of them (--requests) may find the limit"
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
                f"{value_text(self.what, again)}: more requests would separate chance from capacity"
            )


def value_text(over: str, value: float) -> str:
    """A value as text: `7.42 requests/s`."""
    one = value == 1.0 and over != "rate"
    unit = {"rate": "requests/s", "concurrency": "requests in flight", "adapters": "adapters"}[over]
    if one:
        unit = {"concurrency": "request in flight", "adapters": "adapter"}[over]
    return f"{value:.3g} {unit}" if over == "rate" and value < 100.0 else f"{value:,.0f} {unit}"
