"""Who asks: how many requests a client keeps in flight, how long it waits, and when it stops."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import Any

from graphsim.errors import ConfigError
from graphsim.units import as_number, short


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """A client as data of its own, apart from the engine.

    connections: requests in flight at most; refuses: whether those beyond are given up, as by a client without ports;
        else they wait, and their time begins when they are sent (a semaphore, as `--max-concurrency`)
    timeout_s: from sending on; a request that takes longer is given up, and the engine aborts it then
    cutoff_s: end of the run: what has not finished by then is not counted; by default all answers are waited for
    rescales: whether random gaps are scaled so that their sum is what the rate says, as `vllm bench serve` does
    send_s, reply_s: of the client's own, from sending to the server and from the server's token to the client's clock
    """

    connections: float = inf
    refuses: bool = False
    timeout_s: float = inf
    cutoff_s: float = inf
    rescales: bool = True
    send_s: float = 0.0
    reply_s: float = 0.0

    def __post_init__(self) -> None:
        """Raise ConfigError for limits that are not above 0, less or parts of a connection, and negative times."""
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
        bound = "above 0" if least is None else f"from {least:g}"
        raise ConfigError(f"Client: {name} = {short(value)} is not allowed; expected a number {bound}")
