"""The highest rate, concurrency or number of adapters at which a server keeps its limits.

Defined as in DistServe (OSDI 24) and S-LoRA (MLSys 24): the highest load at which at least a share of requests,
the attainment, keeps every limit. An unanswered request keeps none.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from graphsim.deployment.deployment import Deployment, HardwareRef, ModelRef
from graphsim.errors import ConfigError, InfeasibleError, choices_text
from graphsim.result import plain
from graphsim.serving.capacity_runs import Progress, Runs, value_text
from graphsim.serving.goodput import checked_limits, has_limits
from graphsim.serving.scenario import Serving
from graphsim.serving.search import search_highest
from graphsim.serving.serve import serving_of
from graphsim.serving.service import Service
from graphsim.sweeps.sweep import check_executor
from graphsim.traffic.traffic import Traffic
from graphsim.units import as_number, short

if TYPE_CHECKING:
    import pandas as pd

OVER = ("rate", "adapters")


@dataclass(frozen=True, slots=True, kw_only=True)
class Capacity:
    """The largest load that a server can take within latency limits.

    over: what is increased: `rate` (requests per second), `concurrency` (requests in flight) or `adapters`
    value: the highest load tried that meets the limits
    service: the run at that load
    tried: one row per run, sorted by load: the load, kept, attainment, the limiting resource, latency and throughput
    saturates: whether a higher load was tried and failed
    notes: caveats
    """

    over: str
    value: float
    service: Service
    tried: pd.DataFrame
    saturates: bool
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"<Capacity: {self}, found in {len(self.tried)} runs; at it {self.service!r}>"

    def to_dict(self) -> dict[str, Any]:
        """Plain values by name, for JSON."""
        rows = plain(self.tried.to_dict("records"))
        return {
            "over": self.over, "value": plain(self.value), "saturates": self.saturates, "notes": list(self.notes),
            "tried": rows,
        }  # fmt: skip

    def __str__(self) -> str:
        least = "at least " if not self.saturates else ""
        return f"{least}{value_text(self.over, self.value)}"


def capacity(
    model: ModelRef | Deployment,
    hardware: HardwareRef | Traffic | None = None,
    traffic: Traffic | None = None,
    *,
    ttft_s: float | None = None,
    tpot_s: float | None = None,
    e2e_s: float | None = None,
    attainment: float = 0.99,
    over: str = "rate",
    executor: Executor | None = None,
    progress: Progress | None = None,
    **served: Any,
) -> Capacity:
    """Find the highest rate (closed loop: concurrency) or number of adapters that meets the limits, in about ten runs.

    traffic: the requests; its arrival times are scaled, also those of a trace. With `over="adapters"`, requests are
        assigned to adapters again for each number of adapters
    ttft_s, tpot_s, e2e_s: latency limits of a request in seconds; at least one of them, or classes of the traffic with
        their own limits
    attainment: share of requests that must meet all limits
    over: what to increase: `rate`, `concurrency` or `adapters`
    executor: any `concurrent.futures.Executor`, to run several loads at once; the answer is the same within 2 %
    progress: called with the number of runs done and a line of text
    served: further arguments of `serve`
    Ctrl-C ends the search with the highest value found so far.
    Raises InfeasibleError where no load meets the limits, ConfigError as `serve` does.
    """
    check_executor(executor)
    serving = serving_of(model, hardware, traffic, **served)
    asked = {"ttft_s": ttft_s, "tpot_s": tpot_s, "e2e_s": e2e_s}
    limits = {name: value for name, value in asked.items() if value is not None}
    return capacity_of(
        serving, limits, attainment=attainment, over=over, executor=executor, progress=progress
    )  # fmt: skip


def capacity_of(
    serving: Serving,
    limits: Mapping[str, float],
    *,
    attainment: float = 0.99,
    over: str = "rate",
    executor: Executor | None = None,
    progress: Progress | None = None,
) -> Capacity:
    """`capacity` for a given server and traffic."""
    if over not in OVER:
        raise ConfigError(f"over = {short(over)} is not known; {choices_text(over, OVER)}")
    number = as_number(attainment)
    if not isinstance(number, float) or not 0.0 < number <= 1.0:
        raise ConfigError(f"attainment = {short(attainment)} is not allowed; expected a share above 0, up to 1")
    checked_limits(dict(limits))
    if not limits and not has_limits(serving.classes):
        raise ConfigError("capacity needs a limit: ttft_s, tpot_s or e2e_s, or classes of requests with limits")
    runs = Runs(serving=serving, limits=limits, attainment=number, over=over, executor=executor, progress=progress)
    search = runs.search()
    notes: tuple[str, ...] = ()
    try:
        found = search_highest(runs.trials, search)
    except KeyboardInterrupt:
        if (found := search.holding) is None:
            raise
        notes = ("interrupted: the search had not finished",)
    if found is None:
        raise InfeasibleError(runs.why_none())
    return Capacity(
        over=runs.what, value=found, service=runs.service_at(found), tried=runs.frame(),
        saturates=not search.is_open, notes=(*notes, *runs.notes(search)),
    )  # fmt: skip
