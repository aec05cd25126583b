"""Traffic: a server's workload as one object that can be scaled, described and drawn into a table."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from math import inf
from os import PathLike
from typing import Any

import numpy as np

from graphsim.errors import ConfigError
from graphsim.files.present import path_of
from graphsim.traffic.arguments import asked, open_source, read_client, read_concurrency, read_seed
from graphsim.traffic.classes import read_classes
from graphsim.traffic.client import Client
from graphsim.traffic.drawn import drawn_table
from graphsim.traffic.parts import Closed, Open, Parts, Recorded
from graphsim.traffic.popularity import Drift, read_adapters
from graphsim.traffic.rates import MOST, read_burstiness, read_rate
from graphsim.traffic.sessions import Sessions, read_sessions
from graphsim.traffic.shown import described, in_short
from graphsim.traffic.table import RequestTable
from graphsim.traffic.trace import recorded_table
from graphsim.units import checked_number


@dataclass(frozen=True, kw_only=True, repr=False)
class Traffic(Parts):
    """Requests of many users over time; created by `poisson`, `closed` or `from_file`."""

    @classmethod
    def poisson(
        cls, *, rate: Any = None, requests: int | None = None, input_tokens: Any, output_tokens: Any = None,
        seconds: float | None = None, burstiness: float = 1.0, adapters: Any = 0, popularity: Any = "uniform",
        base_share: float = 0.0, ranks: Any = None, sessions: Sessions | None = None, priorities: Any = None,
        classes: Any = (), client: Client | None = None, seed: int = 0,
    ) -> Traffic:  # fmt: skip
        """Open loop: requests arrive at a given rate, whether or not the server keeps up.

        rate: requests per second; inf for all at once; stages `[(rate, seconds), …]`; a `Ramp` or `Bursts`; None where
            `popularity` gives a rate per adapter, whose sum then applies. Follow-up turns count as requests:
            conversations begin at the rate divided by their mean number of turns
        requests: number of requests
        input_tokens, output_tokens: tokens of each prompt and answer: a number, a range (low, high), a list to draw
            from, a `RangeRatio`, a distribution (`lognormal:mean=222,median=152`, `gamma:mean=222,cv=0.8`,
            `normal:mean=…,std=…`, `exponential:mean=…`, `uniform:low=…,high=…`, `zipf:exponent=…,low=…,high=…`, each
            with low and high as its bounds), an object with `rvs`, or a function of (generator, count). A list of pairs
            as input_tokens gives both
        seconds: duration, in place of `requests`; stages need neither
        burstiness: shape parameter of the gamma-distributed gaps: 1 for Poisson arrivals, lower for burstier and higher
            for more regular ones, inf for constant gaps. Gaps are scaled to sum to requests / rate, unless the client
            is `Client(rescales=False)`
        adapters: the registered adapters: their number or names
        popularity: `uniform`, `zipf:1.2`, `power:1`, `geometric:1.5`, `round_robin`, `one`, a rate or share per adapter
            (a list, or a mapping by name), or a `Drift`
        base_share: share of the requests that use no adapter
        ranks: one rank for all adapters, a list, `8/16/32` to assign in turn, or {rank: share of the adapters}
        sessions: conversations and shared prefixes
        priorities: {priority: share of the requests}
        classes: a list of `RequestClass`, in place of priorities
        client: limits of the client
        seed: seed of the random draws
        Raises ConfigError for an argument that is not allowed, or arguments that contradict each other.
        """
        pool = read_adapters(adapters, popularity, base_share, ranks, read_seed(seed))
        if rate is None and pool.rates is not None:
            rate = float(pool.rates.sum())
        source = open_source(read_rate(rate), requests, seconds, read_burstiness(burstiness))
        return cls(source=source, **asked(input_tokens, output_tokens), pool=pool, sessions=read_sessions(sessions),
                   classes=read_classes(classes, priorities), client=read_client(client), seed=seed)  # fmt: skip

    @classmethod
    def closed(
        cls, *, concurrency: int, requests: int, input_tokens: Any, output_tokens: Any = None, adapters: Any = 0,
        popularity: Any = "uniform", base_share: float = 0.0, ranks: Any = None, sessions: Sessions | None = None,
        priorities: Any = None, classes: Any = (), client: Client | None = None, seed: int = 0,
    ) -> Traffic:  # fmt: skip
        """Closed loop: each of `concurrency` clients sends its next request when its last one has been answered.

        The other arguments are those of `poisson`. Raises ConfigError.
        """
        source = Closed(
            concurrency=read_concurrency(concurrency),
            requests=int(checked_number("Traffic: requests", requests, 1, MOST, one=True)),
        )
        pool = read_adapters(adapters, popularity, base_share, ranks, read_seed(seed))
        if isinstance(pool.popularity, Drift):
            raise ConfigError("Traffic: a closed loop has no times at which requests are sent; Drift needs an open one")
        return cls(source=source, **asked(input_tokens, output_tokens), pool=pool, sessions=read_sessions(sessions),
                   classes=read_classes(classes, priorities), client=read_client(client), seed=seed)  # fmt: skip

    @classmethod
    def from_file(
        cls, path: str | PathLike[str], *, requests: int | None = None, start_s: float = 0.0,
        seconds: float | None = None, rate: float | None = None, concurrency: int | None = None,
        adapter: str | None = None, base: str | None = None, adapters: Any = None, popularity: Any = "uniform",
        base_share: float = 0.0, ranks: Any = None, prefixes: bool = True, block_tokens: int | None = None,
        run: int | None = None, priorities: Any = None, classes: Any = (), client: Client | None = None, seed: int = 0,
    ) -> Traffic:  # fmt: skip
        """The requests of a trace: Azure, BurstGPT, Mooncake, Vidur, LLMServingSim, or results of benchmark clients.

        path: the file
        requests: maximum number of requests, taken from the start
        start_s, seconds: use only the part of the trace from `start_s` on that lasts `seconds`
        rate: mean requests per second to which the trace's arrival times are scaled
        concurrency: number of clients of a closed loop, which ignores the trace's times
        adapter: name of the column with each request's adapter, if it is not recognised
        base: value in it that means the base model
        adapters, popularity, base_share, ranks: used in place of the trace's own adapters, as in `poisson`
        prefixes, block_tokens, run: as in `graphsim.traffic.formats.read.read_trace`
        The other arguments are those of `poisson`. Raises ConfigError naming the problem and the line.
        """
        from graphsim.traffic.formats.read import read_trace

        trace = read_trace(
            path_of(path), requests=requests, start_s=start_s, seconds=seconds, adapter=adapter, base=base,
            prefixes=prefixes, block_tokens=block_tokens, run=run, seed=read_seed(seed),
        )  # fmt: skip
        adapted = adapters is None and bool(trace.adapters)
        pool = read_adapters(trace.adapters if adapted else adapters or 0, popularity, base_share, ranks, seed)
        if adapted and (popularity != "uniform" or base_share):
            raise ConfigError(
                f"{path}: says which adapters are wanted; to replace them, give adapters (their number) with popularity"
            )
        source = Recorded(
            path=str(path), rows=trace.table, notes=trace.notes, adapted=adapted,
            rate=None if rate is None else float(checked_number("Traffic: rate", rate, 1e-9, whole=False, one=True)),
            concurrency=None if concurrency is None else read_concurrency(concurrency),
        )  # fmt: skip
        return cls(source=source, pool=pool, classes=read_classes(classes, priorities), client=read_client(client),
                   seed=seed)  # fmt: skip

    def table(self) -> RequestTable:
        """The requests. They are drawn once; the same traffic gives the same requests on every machine."""
        return self._table

    @cached_property
    def _table(self) -> RequestTable:
        source = self.source
        found = recorded_table(self, source) if isinstance(source, Recorded) else drawn_table(self, source)
        if not len(found):
            raise ConfigError(
                "Traffic: by chance no request arrived within the given seconds; give more seconds or a higher rate"
            )
        return found if self.speed == 1.0 else replace(found, arrival_s=found.arrival_s / self.speed)

    @property
    def concurrency(self) -> int | None:
        """Number of clients of a closed loop; None for an open loop."""
        return None if isinstance(self.source, Open) else self.source.concurrency

    @property
    def adapters(self) -> tuple[str, ...]:
        """Names of the registered adapters, in the order in which requests number them."""
        return self.pool.names

    @property
    def ranks(self) -> tuple[int, ...] | None:
        """Rank of each adapter; None where none was given."""
        return self.pool.ranks

    @property
    def notes(self) -> tuple[str, ...]:
        """What the reader of a trace left out or assumed, one sentence each."""
        return self.source.notes if isinstance(self.source, Recorded) else ()

    @property
    def duration_s(self) -> float | None:
        """Seconds during which requests, or conversations, begin; None for a closed loop."""
        if self.concurrency is not None:
            return None
        return float(np.nanmax(self.table().arrival_s, initial=0.0))

    @property
    def request_rate(self) -> float | None:
        """Requests offered per second, including follow-up turns; inf if all come at once, None for a closed loop."""
        return self._per_second(len(self.table()))

    @property
    def input_tokens_per_s(self) -> float | None:
        """Prompt tokens offered per second."""
        return self._per_second(int(self.table().input_tokens.sum()))

    @property
    def output_tokens_per_s(self) -> float | None:
        """Answer tokens requested per second."""
        return self._per_second(int(self.table().output_tokens.sum()))

    def scaled(self, factor: float) -> Traffic:
        """The same requests at a load multiplied by `factor`.

        Arrival times are divided by it; in a closed loop, the concurrency is multiplied by it. Pauses between turns do
        not change.
        """
        checked_number("Traffic.scaled: factor", factor, 1e-9, whole=False, one=True)
        if isinstance(self.source, Open) or self.source.concurrency is None:
            return replace(self, speed=self.speed * factor)
        clients = max(round(self.source.concurrency * factor), 1)
        return replace(self, source=replace(self.source, concurrency=clients))

    def with_adapters(self, count: int) -> Traffic:
        """The same requests over another number of adapters with the same popularity distribution.

        Raises ConfigError if each adapter has its own rate, or if a trace says which adapter a request uses.
        """
        count = int(checked_number("Traffic.with_adapters", count, 1, 10**6, one=True))
        if isinstance(self.source, Recorded) and self.source.adapted:
            raise ConfigError(f"{self.source.path}: says which adapters are wanted; give adapters= to replace them")
        return replace(self, pool=self.pool.resized(count))

    def describe(self) -> str:
        """A description of the traffic and of the requests drawn, one line per fact."""
        return described(self, self.table(), self.duration_s)

    def __repr__(self) -> str:
        return in_short(self)

    def __getstate__(self) -> dict[str, Any]:
        """Without the table, which is drawn again where it is needed."""
        return {name: value for name, value in self.__dict__.items() if name != "_table"}

    def _per_second(self, amount: int) -> float | None:
        seconds = self.duration_s
        if seconds is None:
            return None
        return amount / seconds if seconds else inf
