"""Checks of a traffic's arguments: number of requests, lengths, client, seed."""

from __future__ import annotations

from math import inf
from typing import Any

from graphsim.errors import ConfigError
from graphsim.traffic.client import Client
from graphsim.traffic.lengths import Sample, read_length
from graphsim.traffic.parts import Open
from graphsim.traffic.rates import MOST, Ramp, requests_of
from graphsim.units import amount_text, bounds_text, checked_number, short


def open_source(rate: Any, requests: Any, seconds: Any, burstiness: float) -> Open:
    """Arrivals of an open loop. Raises ConfigError unless the number of requests is given exactly once."""
    if requests is not None:
        requests = int(checked_number("Traffic: requests", requests, 1, MOST, one=True))
    if seconds is not None:
        seconds = float(checked_number("Traffic: seconds", seconds, 1e-9, whole=False, one=True))
    staged = isinstance(rate, tuple)
    if (requests is not None and seconds is not None) or (staged and seconds is not None):
        raise ConfigError("Traffic: requests, seconds and stages all set the number of requests; give only one of them")
    if not staged and requests is None and seconds is None:
        raise ConfigError("Traffic: give requests (how many there are) or seconds (for how long they arrive)")
    if rate == inf and requests is None:
        raise ConfigError(
            "Traffic: rate = inf sends all requests at once; give requests (how many there are), not seconds"
        )
    most = requests_of(rate, seconds)
    if most is not None and not 1 <= most <= MOST:
        raise ConfigError(
            f"Traffic: rate and seconds make {amount_text(most)} requests; expected a number {bounds_text(1, MOST)}"
        )
    if staged and requests is not None and most is not None and requests > most:
        raise ConfigError(
            f"Traffic: requests = {requests} is more than the {amount_text(most)} that the stages of rate have"
        )
    if isinstance(rate, Ramp) and requests is not None and 0.0 in (rate.start, rate.end):
        raise ConfigError("Ramp: with a number of requests, start and end must be above 0; or give seconds")
    return Open(rate=rate, requests=requests, seconds=seconds, burstiness=burstiness)


def asked(inputs: Any, outputs: Any) -> dict[str, Any]:
    """Lengths of prompts and answers by argument name. Raises ConfigError if those of the answers are missing."""
    asked = read_length("Traffic: input_tokens", inputs, pairs=True)
    if outputs is None:
        if not isinstance(asked, Sample) or not asked.pairs:
            raise ConfigError("Traffic: output_tokens is missing; only a list of pairs as input_tokens stands for both")
        return {"input_tokens": asked, "output_tokens": None}
    if isinstance(asked, Sample) and asked.pairs:
        raise ConfigError("Traffic: input_tokens holds pairs, which include the output tokens; leave output_tokens out")
    return {"input_tokens": asked, "output_tokens": read_length("Traffic: output_tokens", outputs)}


def read_client(client: Any) -> Client:
    """The client, by default one without limits. Raises ConfigError for anything else."""
    if client is None:
        return Client()
    if not isinstance(client, Client):
        raise ConfigError(f"Traffic: client = {short(client)} is not allowed; expected Client(connections=…, …)")
    return client


def read_seed(seed: Any) -> int:
    """A seed: an integer from 0. Raises ConfigError for anything else."""
    return int(checked_number("Traffic: seed", seed, 0, 2**63 - 1, one=True))


def read_concurrency(concurrency: Any) -> int:
    """Number of clients of a closed loop. Raises ConfigError for less than one."""
    return int(checked_number("Traffic: concurrency", concurrency, 1, MOST, one=True))
