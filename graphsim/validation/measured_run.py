"""A measured run of one server over time: the deployment, the traffic, and the reported figures."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from graphsim.serving.fleet.router import Router
from graphsim.traffic.client import Client
from graphsim.traffic.table import RequestTable
from graphsim.validation.scrapes import Scrapes

HALVES = ("chosen on", "held out")
"""The two halves of the runs: one for choosing constants, one for evaluating them."""

Measured = tuple[tuple[str, float], ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Served:
    """The deployment of a run and its requests: the input of a simulation.

    deployment: arguments of `Deployment` by name
    limits: arguments of `EngineLimits` by name
    table: function that creates the requests
    client: the client that sends them
    concurrency: number of clients of a closed loop
    loaded: whether all adapters are in host memory before the first request arrives
    first_load_s: seconds to load an adapter into host memory, if different from the engine's own
    samples: whether tokens are sampled from a truncated distribution; otherwise decoding is greedy
    scrapes: readings of the server's metrics during the run, None for none
    replicas: number of identical servers
    router: router in front of the servers, None for a single one
    """

    deployment: Mapping[str, Any]
    table: Callable[[], RequestTable]
    limits: Mapping[str, Any] = field(default_factory=dict)
    client: Client = field(default_factory=Client)
    concurrency: int | None = None
    loaded: bool = False
    first_load_s: float | None = None
    samples: bool = False
    scrapes: Scrapes | None = None
    replicas: int = 1
    router: Router | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MeasuredRun:
    """A row of a table of runs, or a part of a run with separate figures.

    measured: figures by the file's own names, which may occur twice
    served: what ran, None if it cannot be simulated
    problem: the reason why it cannot be simulated
    key: equal for parts of the same run, which is simulated once
    of: first row and end (exclusive) of the requests that the figures cover; all by default
    judged: "" or the reason why its figures are judged separately
    about: further columns of its lines
    """

    id: str
    measured: Measured
    served: Served | None = None
    key: Hashable = None
    of: tuple[int, int] | None = None
    judged: str = ""
    problem: str = ""
    about: Mapping[str, Any] = field(default_factory=dict)

    @property
    def run(self) -> Hashable:
        """The key of the run, the same for all its parts."""
        return self.id if self.key is None else self.key

    @property
    def half(self) -> str:
        """The half that the run belongs to; all parts of a run are in the same half."""
        return HALVES[zlib.crc32(repr(self.run).encode()) % 2]


def sampled(runs: Sequence[MeasuredRun], most: int | None) -> list[MeasuredRun]:
    """At most `most` runs, evenly spaced, with all parts of each."""
    keys = list(dict.fromkeys(run.run for run in runs))
    if most is None or most >= len(keys):
        return list(runs)
    chosen = {keys[i * len(keys) // most] for i in range(most)}
    return [run for run in runs if run.run in chosen]
