"""The parts of a traffic: arrivals, lengths, adapters, conversations, classes and client."""

from __future__ import annotations

from dataclasses import dataclass

from graphsim.traffic.classes import RequestClass
from graphsim.traffic.client import Client
from graphsim.traffic.lengths import Length
from graphsim.traffic.popularity import Adapters
from graphsim.traffic.rates import Rate, requests_of
from graphsim.traffic.sessions import Sessions
from graphsim.traffic.table import RequestTable


@dataclass(frozen=True, slots=True, kw_only=True)
class Open:
    """An open loop: requests arrive at a rate, independently of answers, up to a number or for a duration."""

    rate: Rate
    requests: int | None = None
    seconds: float | None = None
    burstiness: float = 1.0

    @property
    def count(self) -> int:
        """Number of requests; None if it is random."""
        return self.requests or requests_of(self.rate, self.seconds) or 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Closed:
    """A closed loop: each client sends its next request when its last one has been answered."""

    concurrency: int
    requests: int

    @property
    def count(self) -> int:
        """Requests."""
        return self.requests


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Recorded:
    """Requests from a file, and how they are used.

    path: path of the file
    rows: its requests
    notes: what its reader left out or assumed
    rate: mean requests per second to which its times are scaled; None for unchanged times
    concurrency: number of clients of a closed loop, which ignores its times; None for an open loop
    adapted: whether its own adapters are used
    """

    path: str
    rows: RequestTable
    notes: tuple[str, ...] = ()
    rate: float | None = None
    concurrency: int | None = None
    adapted: bool = False

    @property
    def count(self) -> int:
        """Requests."""
        return len(self.rows)


@dataclass(frozen=True, kw_only=True)
class Parts:
    """All parts of a traffic.

    source: arrivals of requests
    input_tokens, output_tokens: lengths; the second is None if the first has pairs
    pool: registered adapters and their popularity
    sessions: conversations and shared prefixes
    classes: classes of requests with their own limits
    client: the client that sends the requests
    seed: seed of the random draws
    speed: factor by which arrival times are divided
    """

    source: Open | Closed | Recorded
    input_tokens: Length = 1
    output_tokens: Length | None = 1
    pool: Adapters = Adapters()
    sessions: Sessions | None = None
    classes: tuple[RequestClass, ...] = ()
    client: Client = Client()
    seed: int = 0
    speed: float = 1.0
