"""What a traffic is made of: when requests are sent, how long they are, which adapters they want, who sends them."""

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
    """Requests that come when they come: at a rate, so many of them or for this many seconds."""

    rate: Rate
    requests: int | None = None
    seconds: float | None = None
    burstiness: float = 1.0

    @property
    def count(self) -> int:
        """Requests, where chance does not decide how many."""
        return self.requests or requests_of(self.rate, self.seconds) or 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Closed:
    """Requests that clients send one by one, each when its last one is answered."""

    concurrency: int
    requests: int

    @property
    def count(self) -> int:
        """Requests."""
        return self.requests


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Recorded:
    """What a file holds, and how it is used.

    path: of the file; rows: of it; notes: what its reader left out or took for granted
    rate: requests per second on average, to which its times are stretched, None for as they are; concurrency: of a
    closed loop, which does not go by its times, None for an open one; adapted: whether its own adapters are wanted
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
    """Everything that decides what is asked.

    source: when requests are sent; input_tokens, output_tokens: lengths, the second None where the first has pairs
    pool: registered adapters and their popularity; sessions: conversations and shared prefixes; classes: kinds of
    requests with limits of their own; client: who sends them; seed: of all that is drawn; speed: by how much arrival
    times are divided
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
