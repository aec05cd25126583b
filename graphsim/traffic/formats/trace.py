"""A trace as simulated servers take it, and what a reader may be asked for."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

from graphsim.traffic.table import RequestTable


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Trace:
    """Requests of a file, the first one sent at 0 s.

    adapters: names behind the indices of `table.adapter`; name: of the file, without its suffix
    notes: what was left out, drawn or taken for granted, a sentence each
    concurrency: requests that the recorded client kept in flight at most; None where the file does not say
    """

    table: RequestTable
    adapters: tuple[str, ...]
    name: str
    notes: tuple[str, ...]
    concurrency: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a caller asks of a trace: the arguments of `read_trace`."""

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
        """Rows of a file that have to be read, if those are the ones that were asked for."""
        whole = self.requests is None or self.start_s > 0.0 or self.seconds < inf
        return inf if whole or self.requests is None else self.requests
