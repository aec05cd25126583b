"""What a simulated server did with its traffic, as figures and tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import inf
from typing import TYPE_CHECKING, Any

from graphsim.errors import ConfigError
from graphsim.serving import goodput as goodputs
from graphsim.serving import service_tables as tables
from graphsim.serving.fairness import fairness, jain_index
from graphsim.serving.figures import PERCENTILES, Floats, Latencies, checked_percentiles, ends_of, latencies_of
from graphsim.serving.goodput import Goodput, Judged, Limits
from graphsim.serving.over_time import OverTime, columns_of
from graphsim.serving.rules import Rules
from graphsim.serving.run_log import REFUSED, STATUSES, TIMED_OUT, UNFINISHED, RunLog
from graphsim.serving.summary import duration_of, latency_figures, peaks, totals
from graphsim.serving.tier_report import tier_rows
from graphsim.serving.token_times import TokenTimes
from graphsim.serving.utilisation import Utilisation, utilisation_of, warnings_of
from graphsim.traffic.table import BASE, RequestTable
from graphsim.units import short

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class ServedRun:
    """A run of one server under one traffic; `Service` adds output to it.

    table, log, rules: the requests, what happened to them, and the scheduler's rules
    model, hardware, engine: names, as in `Estimate`
    settings: the other arguments, as plain values
    adapter_names: names of the registered adapters, by their number in the table
    classes: request classes, by group
        number
    request_rate: requested rate in requests per second, inf for as fast as answers come
    burstiness: shape of the gaps
    concurrency: number of clients of a closed loop, else the client's maximum of connections, if any; open_loop:
        whether requests arrived by the clock; timeout_s: seconds after which clients give up
    notes: what was left out or assumed
    again: repeats the run with all step times multiplied by a factor
    step_factors: the factors between which steps are
        expected to lie, for a coverage; both None without residuals of steps
    """

    table: RequestTable
    log: RunLog
    rules: Rules
    model: str = ""
    hardware: str = ""
    engine: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    adapter_names: tuple[str, ...] = ()
    classes: tuple[Limits, ...] = ()
    request_rate: float = inf
    burstiness: float = 1.0
    concurrency: int | None = None
    open_loop: bool = True
    timeout_s: float = inf
    notes: tuple[str, ...] = ()
    again: Callable[[float], ServedRun] | None = None
    step_factors: Callable[[float], tuple[float, float]] | None = None

    def __post_init__(self) -> None:
        most = int(self.table.adapter.max(initial=BASE)) + 1
        if len(self.adapter_names) < most:
            more = tuple(f"adapter-{i}" for i in range(len(self.adapter_names), most))
            object.__setattr__(self, "adapter_names", self.adapter_names + more)
        object.__setattr__(self, "adapter_names", tuple(_utf8(name) for name in self.adapter_names))
        groups = int(self.table.group.max(initial=0)) + 1
        if len(self.classes) < groups:
            rest = tuple(Limits(name=f"class {i}") for i in range(len(self.classes), groups))
            object.__setattr__(self, "classes", (*self.classes, *rest))
        object.__setattr__(self, "classes", tuple(replace(which, name=_utf8(which.name)) for which in self.classes))
        _refuse_twice("adapter", self.adapter_names)
        _refuse_twice("class of requests", [which.name for which in self.classes])

    @cached_property
    def latencies(self) -> Latencies:
        """TTFT, TPOT and E2E of each request, as columns."""
        return latencies_of(self.table, self.log)

    @cached_property
    def over_time(self) -> OverTime:
        """Its steps over time."""
        return OverTime(columns=columns_of(self.log.runs))

    @cached_property
    def ends_s(self) -> Floats:
        """When each request was answered, given up or turned away; the run's end for one cut off, nan if never sent."""
        return ends_of(self.log, self.timeout_s)

    @property
    def engines(self) -> Sequence[ServedRun]:
        """Each engine's own run: itself where there is one."""
        return (self,)

    def rows_of(self, engine: int) -> Any:
        """Numbers of the requests of one of `engines`, in the order of its table."""
        return range(len(self.table))

    @property
    def servers(self) -> int:
        """Replicas of the engine."""
        return 1

    def token_gaps(self, row: int) -> Floats:
        """Seconds between the tokens of an answered request, told from the engine's steps."""
        return self.token_times.gaps(
            self.log.first_token_s[row], self.log.finished_s[row], int(self.table.output_tokens[row])
        )

    @cached_property
    def token_times(self) -> TokenTimes:
        """When tokens came, by the engine's steps."""
        return TokenTimes(self.over_time.columns, bursts=self.rules.drafted is not None)

    @property
    def duration_s(self) -> float:
        """Simulated seconds to the last answer, or to where the client or its user ended the run."""
        return duration_of(self.log)

    @property
    def requests(self) -> pd.DataFrame:
        """One row per request, its times in seconds on the run's clock; rebuilt at each call."""
        return self.request_rows(slice(None))

    def request_rows(self, rows: slice) -> pd.DataFrame:
        """Some rows of `requests`, which for a million of them need not be made at once."""
        names = [which.name for which in self.classes]
        return tables.request_frame(self.table, self.log, self.latencies, self.adapter_names, names, rows)

    @cached_property
    def adapters(self) -> pd.DataFrame:
        """A row an adapter: requests, percentiles, loads, hits, stalls and the longest wait."""
        return tables.adapter_frame(
            self.table, self.log, self.latencies, self.ends_s, self.adapter_names, (50.0, *PERCENTILES)
        )

    @cached_property
    def groups(self) -> pd.DataFrame:
        """One row per class of requests: its limits, percentiles, and the share that met all limits."""
        found = self._judged(None) if goodputs.has_limits(self.classes) else None
        percentiles = (50.0, *PERCENTILES)
        return tables.class_frame(self.table, self.log, self.latencies, self.classes, found, percentiles)

    @cached_property
    def steps(self) -> pd.DataFrame:
        """One row per run of identical engine steps: start, time of a step, batch, tokens, adapters, use of the KV
        cache.
        """
        return tables.step_frame(self.over_time.columns, self.rules.kv_blocks)

    def summary(self, percentiles: Iterable[float] = PERCENTILES) -> dict[str, Any]:
        """The figures under the keys of `vllm bench serve`'s result file; latencies in milliseconds.

        percentiles: from 0 to 100. `request_goodput` counts requests that met the limits of their classes, None if
        these have none. Unknown figures are nan. Raises ConfigError for percentiles that are none.
        """
        shares = checked_percentiles(percentiles)
        rate = self.request_rate
        asked = {
            "endpoint_type": "graphsim", "backend": "graphsim", "label": self.engine or None, "model_id": self.model,
            "tokenizer_id": self.model, "num_prompts": len(self.table),
            "request_rate": "inf" if rate == inf else rate, "burstiness": self.burstiness,
            "max_concurrency": self.concurrency,
        }  # fmt: skip
        found = asked | totals(self.table, self.log, self.latencies, self.duration_s)
        limits = goodputs.has_limits(self.classes)
        found["request_goodput"] = self.goodput().requests_per_s if limits else None
        found |= peaks(self.table, self.log, self.latencies.done)
        return found | latency_figures(self.latencies, self.log.gaps, shares)

    def goodput(self, ttft_s: float | None = None, tpot_s: float | None = None, e2e_s: float | None = None) -> Goodput:
        """Requests per second that met all limits, and their share of all; by default the limits of their own classes.

        A request with one token has a TPOT of 0. What failed met no limit; what the end of the run cut off counts only
        if it had broken a limit by then. Raises ConfigError where there is no limit at all, or one is not above 0.
        """
        asked = goodputs.checked_limits({"ttft_s": ttft_s, "tpot_s": tpot_s, "e2e_s": e2e_s})
        if asked is None and not goodputs.has_limits(self.classes):
            raise ConfigError("goodput needs a limit: ttft_s, tpot_s or e2e_s, or classes of requests that have some")
        return goodputs.goodput(self._judged(asked), self.duration_s)

    def _judged(self, asked: Limits | None) -> Judged:
        limits = self.classes if asked is None else (asked,)
        return goodputs.judged(self.latencies, self.log, self.table.group, limits)

    @cached_property
    def utilisation(self) -> Utilisation:
        """How full the engine, its KV cache, its batch and its adapter slots were while requests came."""
        return utilisation_of(self.log, self.ends_s, self.rules, self.over_time)

    @property
    def fairness(self) -> float:
        """Jain's index over adapters of the share that each was served of the tokens asked of it in time.

        1 where all were served alike, 1/n where one of n was and the others starved; see `serving.fairness`.
        """
        found = fairness(self.table, self.log)
        return jain_index(found.served_share[found.adapters != BASE])

    @property
    def more_rows(self) -> list[tuple[str, str]]:
        """Labels and figures of reports that only runs of this kind have."""
        return tier_rows(self.log, self.rules)

    @cached_property
    def warnings(self) -> tuple[str, ...]:
        """Caveats: a queue that grows, a server near saturation, slots that limit, a run cut short."""
        columns = self.over_time.columns
        step_s = float(columns["seconds"].sum() / max(columns["steps"].sum(), 1.0))
        told = warnings_of(self.utilisation, self.rules, step_s, open_loop=self.open_loop)
        told = (*self._unanswered(), *told)
        if self.log.interrupted:
            told = (f"interrupted after {self.log.end_s:.3g} simulated seconds; later events are missing", *told)
        return told

    def _unanswered(self) -> Iterator[str]:
        """A sentence on requests that their client did not get an answer for; too long ones are in the notes."""
        ways = {
            TIMED_OUT: "took longer than the client waits (timeout_s)",
            REFUSED: "found no free connection of the client",
        }
        if not self.log.interrupted:
            ways[UNFINISHED] = "had no answer when the client stopped (cutoff_s), and are not counted"
        for status, what in ways.items():
            if count := int((self.log.status == STATUSES.index(status)).sum()):
                yield f"{count:,} of {len(self.table):,} requests {what}"


def _utf8(name: str) -> str:
    """A name as files can hold it."""
    return name.encode("utf-8", errors="replace").decode()


def _refuse_twice(what: str, names: Sequence[str]) -> None:
    """Raise ConfigError where two have the same name."""
    twice = next((name for name, count in Counter(names).items() if count > 1), None)
    if twice is not None:
        raise ConfigError(f"{what} {short(twice)} is named twice; expected a name of its own for each")
