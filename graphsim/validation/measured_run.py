"""A measured run of one server over time: what was served, to whom, and what was reported of it."""

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
"""What constants may be chosen on, and what judges them."""

Measured = tuple[tuple[str, float], ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Served:
    """What ran, and the requests that it was sent: all that a simulation needs.

    deployment: arguments of `Deployment` by their names; limits: of `EngineLimits`
    table: makes the requests; client: who sends them; concurrency: of a closed loop
    loaded: whether all adapters are in the host's memory before the first request comes
    first_load_s: of an adapter on its way into the host's memory, where the engine's own is not what the server did
    samples: whether tokens are drawn from a cut distribution, not the most likely ones taken
    scrapes: who reads the server's metrics meanwhile, None for no reader
    replicas: identical servers, and router: what sends requests to them, None for one server
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
    """A row of a table of runs, or a part of a run that has figures of its own.

    measured: figures by the file's own names, which may come twice
    served: what ran, None where it cannot be simulated: `problem` says why
    key: equal for parts of the same run, which is simulated once
    of: the part of its requests that the figures are of, as rows of the table from one to before another (all)
    judged: "" or why its figures are judged apart; about: further columns of its lines
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
        """What tells it from other runs, the same for all parts of one."""
        return self.id if self.key is None else self.key

    @property
    def half(self) -> str:
        """Half of the runs may choose constants, the other one judges them; parts of one run go together."""
        return HALVES[zlib.crc32(repr(self.run).encode()) % 2]


def sampled(runs: Sequence[MeasuredRun], most: int | None) -> list[MeasuredRun]:
    """As many runs as asked for, at equal distances, with all parts of each."""
    keys = list(dict.fromkeys(run.run for run in runs))
    if most is None or most >= len(keys):
        return list(runs)
    chosen = {keys[i * len(keys) // most] for i in range(most)}
    return [run for run in runs if run.run in chosen]
