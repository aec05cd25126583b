"""How evenly a router spread its requests, and how often replicas reloaded adapters."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np

from graphsim.serving.run_log import Ints, RunLog
from graphsim.traffic.table import RequestTable

UNEVEN = 1.5
"""Ratio of the fullest replica to the mean from which a warning is given."""
THRASHES = 0.5
"""Share of reloads among all loads from which a warning is given, if requests waited for them."""


class Run(Protocol):
    """The parts of a fleet's run that are evaluated here."""

    @property
    def table(self) -> RequestTable:
        """The requests."""

    @property
    def replica(self) -> Ints:
        """Replica of each request."""

    @property
    def logs(self) -> tuple[RunLog, ...]:
        """Log of each replica."""

    @property
    def adapter_names(self) -> tuple[str, ...]:
        """Names of the registered adapters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reloads:
    """For each adapter, the replicas that loaded it, and its loads on a replica that had loaded it before."""

    replicas: Ints
    reloads: Ints


@dataclass(frozen=True, slots=True, kw_only=True)
class Balance:
    """replicas: all, and used: those that took requests; requests, tokens: most of one over the mean of all (1: even)

    tokens count prompts and answers; spread: standard deviation of tokens over their mean
    loads, reloads: of adapters into slots, and those of an adapter that the replica had loaded before
    thrash: reloads per request that has an adapter
    copies: replicas that an adapter was loaded on, on average
    stalled: share of all engine steps' time that loads took
    """

    replicas: int
    used: int
    requests: float
    tokens: float
    spread: float
    loads: int
    reloads: int
    thrash: float
    copies: float
    stalled: float

    def to_dict(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)

    def warnings(self) -> Iterator[str]:
        """Sentences on weaknesses of the router."""
        if self.tokens >= UNEVEN and self.replicas > 1:
            yield (
                f"uneven load: the fullest replica gets {self.tokens:.2g} times the mean of all, so that its queue "
                "decides the slowest requests"
            )
        if self.loads and self.reloads >= THRASHES * self.loads and self.thrash >= 0.05:
            yield (
                f"adapters thrash: {self.reloads:,} of {self.loads:,} loads bring back an adapter that the replica had "
                f"loaded before, {self.thrash:.2g} for each request; more slots, or a router that keeps adapters "
                "together (placed, rendezvous), would help"
            )


def balance_of(run: Run) -> Balance:
    """The router's balance in a run."""
    count, known = len(run.logs), run.replica >= 0
    requests = np.bincount(run.replica[known], minlength=count).astype(float)
    each = (run.table.input_tokens + run.table.output_tokens)[known].astype(float)
    tokens = np.bincount(run.replica[known], weights=each, minlength=count)
    found = reloads_of(run.logs, len(run.adapter_names))
    loads, reloads = sum(len(log.loads) for log in run.logs), int(found.reloads.sum())
    adapted = int((run.table.adapter[known] >= 0).sum())
    somewhere = found.replicas[found.replicas > 0]
    return Balance(
        replicas=count, used=int((requests > 0).sum()), requests=_over_mean(requests), tokens=_over_mean(tokens),
        spread=float(tokens.std() / tokens.mean()) if tokens.any() else 0.0, loads=loads, reloads=reloads,
        thrash=reloads / adapted if adapted else 0.0, copies=float(somewhere.mean()) if len(somewhere) else 0.0,
        stalled=_stalled(run.logs),
    )  # fmt: skip


def reloads_of(logs: Sequence[RunLog], adapters: int) -> Reloads:
    """Counted from what each replica loaded."""
    replicas, reloads = np.zeros(adapters, dtype=np.int64), np.zeros(adapters, dtype=np.int64)
    for log in logs:
        loaded = np.asarray(log.loads, dtype=float).reshape(-1, 4)[:, 2].astype(np.int64)
        times = np.bincount(loaded[loaded >= 0], minlength=adapters)
        replicas += times > 0
        reloads += np.maximum(times - 1, 0)
    return Reloads(replicas=replicas, reloads=reloads)


def _over_mean(values: Any) -> float:
    return float(values.max() / values.mean()) if values.any() else 1.0


def _stalled(logs: Sequence[RunLog]) -> float:
    rows = [np.asarray(log.runs, dtype=float).reshape(-1, 10) for log in logs]
    seconds = sum(float(part[:, 1].sum()) for part in rows)
    return sum(float(part[:, 9].sum()) for part in rows) / seconds if seconds else 0.0
