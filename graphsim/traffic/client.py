"""The client that sends requests: limits of requests in flight, timeouts and the end of the run."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import Any

from graphsim.errors import ConfigError
from graphsim.units import as_number, bounds_text, short


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """The client that sends the requests, described separately from the engine.

    connections: maximum number of requests in flight
    refuses: whether requests beyond `connections` fail, as with a client that runs out of ports; otherwise they wait,
        and their latency counts from when they are sent (a semaphore, as with `--max-concurrency`)
    timeout_s: seconds after which the client gives up on a request and the engine aborts it
    cutoff_s: end of the run in seconds; requests unfinished by then are not counted. By default the run ends with the
        last answer
    rescales: whether random gaps are scaled so that their sum matches the rate, as in `vllm bench serve`
    send_s, reply_s: seconds from sending a request to its receipt by the server, and from a token at the server to the
        client's timestamp
    """

    connections: float = inf
    refuses: bool = False
    timeout_s: float = inf
    cutoff_s: float = inf
    rescales: bool = True
    send_s: float = 0.0
    reply_s: float = 0.0

    def __post_init__(self) -> None:
        """Raise ConfigError for limits that are not above 0, numbers of connections that are not integers, and negative
        times.
        """
        for name, least in (("connections", 1.0), ("timeout_s", None), ("cutoff_s", None)):
            _check(name, getattr(self, name), least, endless=True)
        if self.connections != inf and self.connections != int(self.connections):
            raise ConfigError(
                f"Client: connections = {self.connections} is not allowed; expected a whole number, or inf"
            )
        for name in ("send_s", "reply_s"):
            _check(name, getattr(self, name), 0.0, endless=False)


def _check(name: str, value: Any, least: float | None, *, endless: bool) -> None:
    number = as_number(value)
    if not isinstance(number, float) or not (number > 0 if least is None else number >= least) or (
        number == inf and not endless
    ):  # fmt: skip
        bound = "above 0" if least is None else bounds_text(least)
        raise ConfigError(f"Client: {name} = {short(value)} is not allowed; expected a number {bound}")
