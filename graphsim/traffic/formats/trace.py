"""A trace in the form that simulated servers take, and the arguments of readers."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

from graphsim.traffic.table import RequestTable


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Trace:
    """The requests in a file; the first one is sent at 0 s.

    table: the requests
    adapters: names for the indices in `table.adapter`
    name: name of the file without suffix
    notes: what was left out, drawn or assumed, one sentence each
    concurrency: maximum number of requests that the recorded client kept in flight; None if not stated
    """

    table: RequestTable
    adapters: tuple[str, ...]
    name: str
    notes: tuple[str, ...]
    concurrency: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """The arguments of `read_trace`."""

    requests: int | None = None
    start_s: float = 0.0
    seconds: float = inf
    adapter: str | None = None
    base: str | None = None
    prefixes: bool = True
    block_tokens: int | None = None
    run: int | None = None
    seed: int = 0

    @property
    def rows(self) -> float:
        """Number of rows of a file that must be read if the first ones are requested; otherwise inf."""
        whole = self.requests is None or self.start_s > 0.0 or self.seconds < inf
        return inf if whole or self.requests is None else self.requests
