"""The result of `gs.serve` for several replicas: combined figures, and those of each one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from math import inf
from typing import TYPE_CHECKING, Any

import numpy as np

from graphsim.errors import ConfigError
from graphsim.result import plain
from graphsim.serving.fleet import fleet_tables as tables
from graphsim.serving.fleet.balance import Balance, balance_of, reloads_of
from graphsim.serving.over_time import OverTime
from graphsim.serving.run_log import Ints, RunLog
from graphsim.serving.service import Service
from graphsim.serving.token_times import TokenTimes
from graphsim.serving.utilisation import Utilisation, warnings_of

if TYPE_CHECKING:
    import pandas as pd

NOT_ONE = "a fleet of {count} replicas has no timeline of one engine; take that of one of them, service.of_replica(0)"


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class FleetService(Service):
    """A run of several replicas behind a router. It has what `Service` has, and each replica's own run.

    replica: of each request, -1 where it reached none
    router: its name
    logs: of each replica
    spans: for replicas that were added or removed, when each was started and when it was empty again (inf: never);
        empty without scaling
    history: times in seconds, and the number of replicas that took requests from then on; empty without scaling
    devices: number of devices of one replica
    """

    replica: Ints
    logs: tuple[RunLog, ...]
    router: str = ""
    spans: tuple[tuple[float, float], ...] = ()
    history: tuple[tuple[float, int], ...] = ()
    devices: int = 1

    @property
    def servers(self) -> int:
        """Number of replicas, including those added later."""
        return len(self.logs)

    def of_replica(self, number: int) -> Service:
        """One replica alone, with its requests. Raises ConfigError if it does not exist."""
        if not 0 <= number < len(self.logs):
            raise ConfigError(f"replica {number} does not exist; there are {len(self.logs)}, counted from 0")
        return self._alone[number]

    @property
    def engines(self) -> Sequence[Service]:
        """Each replica's own run."""
        return self._alone

    def rows_of(self, engine: int) -> Any:
        """Numbers of the requests of a replica, in the order of its table."""
        return np.flatnonzero(self.replica == engine).tolist()

    @property
    def fullest(self) -> Service:
        """The replica with the highest load."""
        return max(self._alone, key=lambda service: service.utilisation.load)

    @cached_property
    def _alone(self) -> tuple[Service, ...]:
        names = {field.name for field in fields(Service)} - {"table", "log", "again"}
        same = {name: getattr(self, name) for name in names}
        found = []
        for number, log in enumerate(self.logs):
            rows = np.flatnonzero(self.replica == number)
            found.append(
                Service(
                    table=tables.some_of(self.table, self.log, rows), log=tables.log_of(self.log, log, rows), **same
                )
            )
        return tuple(found)

    def request_rows(self, rows: slice) -> pd.DataFrame:
        """Some rows of `requests`, with the replica of each."""
        return super().request_rows(rows).assign(replica=self.replica[rows].astype(np.int32))

    @cached_property
    def replicas(self) -> pd.DataFrame:
        """One row per replica: requests, latencies, use of its engine, loads of adapters, and how long it was there."""
        return tables.replica_frame(self._alone, self._spans, self.logs)

    @property
    def _spans(self) -> Sequence[tuple[float, float]]:
        return self.spans or [(0.0, inf)] * len(self.logs)

    @property
    def replica_s(self) -> float:
        """Seconds that replicas were there, all together, from their start until they were empty or the run ended."""
        return float(sum(min(end, self.duration_s) - min(start, self.duration_s) for start, end in self._spans))

    @cached_property
    def adapters(self) -> pd.DataFrame:
        """As for one server, with the replicas that held each adapter, and its loads where it had been held before."""
        frame, found = super().adapters, reloads_of(self.logs, len(self.adapter_names))
        more = {"replicas": found.replicas, "reloads": found.reloads}
        return frame.assign(**{name: np.append(values, 0)[: len(frame)] for name, values in more.items()})

    @cached_property
    def balance(self) -> Balance:
        """How evenly requests, tokens and time were spread over the replicas, and how often adapters were reloaded."""
        return balance_of(self)

    @cached_property
    def steps(self) -> pd.DataFrame:
        """One row per run of identical engine steps, of all replicas, with the replica of each."""
        import pandas as pd

        return pd.concat(
            [service.steps.assign(replica=np.int32(number)) for number, service in enumerate(self._alone)],
            ignore_index=True,
        )

    @property
    def over_time(self) -> OverTime:
        """Raises ConfigError: there are several engines."""
        raise ConfigError(NOT_ONE.format(count=self.servers))

    @cached_property
    def utilisation(self) -> Utilisation:
        """Means over the replicas, peaks of the fullest; queues and rates of all together."""
        return tables.utilisation_of_all([service.utilisation for service in self._alone])

    @cached_property
    def warnings(self) -> tuple[str, ...]:
        """Caveats on the fleet's figures."""
        seconds = sum(float(service.over_time.columns["seconds"].sum()) for service in self._alone)
        steps = sum(float(service.over_time.columns["steps"].sum()) for service in self._alone)
        told = warnings_of(self.utilisation, self.rules, seconds / max(steps, 1.0), open_loop=self.open_loop)
        told = (*self._unanswered(), *told, *self.balance.warnings())
        if self.log.interrupted:
            told = (f"interrupted after {self.log.end_s:.3g} simulated seconds; later events are missing", *told)
        return told

    def token_gaps(self, row: int) -> Any:
        """Seconds between the tokens of a request, by the steps of its replica."""
        times = self._times_of_each[int(self.replica[row])]
        return times.gaps(self.log.first_token_s[row], self.log.finished_s[row], int(self.table.output_tokens[row]))

    @cached_property
    def _times_of_each(self) -> tuple[TokenTimes, ...]:
        return tuple([service.token_times for service in self._alone])

    def to_dict(self) -> dict[str, Any]:
        """As for one server, with the router, the replicas and their balance."""
        own = {
            "router": self.router, "replicas": self.replicas.to_dict("records"), "balance": self.balance.to_dict(),
            "replica_s": self.replica_s, "scaled": [list(entry) for entry in self.history],
        }  # fmt: skip
        return {**super().to_dict(), **plain(own)}
