"""Which requests met their limits: goodput as DistServe (Zhong et al. 2024) and `vllm bench serve` have it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from typing import Any, NamedTuple

import numpy as np

from graphsim.errors import ConfigError
from graphsim.serving.figures import Latencies
from graphsim.serving.run_log import STATUSES, UNFINISHED, RunLog
from graphsim.units import amount_text, checked_number

Floats = np.ndarray[Any, np.dtype[np.float64]]
Ints = np.ndarray[Any, np.dtype[np.int64]]
Flags = np.ndarray[Any, np.dtype[np.bool_]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Limits of a class of requests, in seconds; inf where there is none."""

    name: str = ""
    ttft_s: float = inf
    tpot_s: float = inf
    e2e_s: float = inf


NAMES = ("ttft_s", "tpot_s", "e2e_s")


class Goodput(NamedTuple):
    """requests_per_s: of requests that met all limits; share: of all requests with a known outcome."""

    requests_per_s: float
    share: float


class Judged(NamedTuple):
    """Which requests met all their limits, and for which this is known."""

    good: Flags
    known: Flags


def checked_limits(given: dict[str, float | None]) -> Limits | None:
    """Limits for all requests, None if none is given. Raises ConfigError for anything but a time above 0."""
    for name, value in given.items():
        if value is None or (isinstance(value, float) and value == inf):
            continue
        if not checked_number(name, value, 0.0, whole=False, one=True) > 0:
            raise ConfigError(f"{name} = {amount_text(value)} is not allowed; expected seconds above 0")
    if all(value is None for value in given.values()):
        return None
    ttft_s, tpot_s, e2e_s = (inf if given.get(name) is None else float(given[name] or 0.0) for name in NAMES)
    return Limits(ttft_s=ttft_s, tpot_s=tpot_s, e2e_s=e2e_s)


def has_limits(classes: Sequence[Limits]) -> bool:
    """Whether any class has a limit."""
    return any(getattr(which, name) < inf for which in classes for name in NAMES)


def judged(latencies: Latencies, log: RunLog, group: Ints, limits: Sequence[Limits]) -> Judged:
    """Whether each request met the limits of its class (of the only one, if there is one).

    A request that failed met none. One that was cut off with the run is known only if it had broken a limit by then.
    """
    which = group if len(limits) > 1 else np.zeros_like(group)
    ttft_s, tpot_s, e2e_s = (np.array([getattr(one, name) for one in limits])[which] for name in NAMES)
    late = latencies.ttft_s > ttft_s
    tpot = np.where(np.isnan(latencies.tpot_s), 0.0, latencies.tpot_s)
    good = latencies.done & ~late & (tpot <= tpot_s) & (latencies.e2e_s <= e2e_s)
    age = log.end_s - log.sent_s
    broken = late | (np.isnan(log.first_token_s) & (age > ttft_s)) | (age > e2e_s)
    known = (log.status != STATUSES.index(UNFINISHED)) | broken
    return Judged(good=good, known=known)


def goodput(found: Judged, duration_s: float) -> Goodput:
    """Rate and share of requests that met all."""
    good, known = int(found.good.sum()), int(found.known.sum())
    return Goodput(
        requests_per_s=good / duration_s if duration_s > 0 else float("nan"),
        share=good / known if known else float("nan"),
    )
