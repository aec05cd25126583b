"""Request rates: numbers, stages, ramps and bursts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, inf, log
from typing import Any

import numpy as np

from graphsim.errors import ConfigError, choices_text
from graphsim.traffic.table import Floats
from graphsim.units import amount_text, as_number, checked_number, short

STRATEGIES = ("linear", "exponential")
MOST = 10**8
"""Maximum number of requests of a traffic."""


@dataclass(frozen=True, slots=True)
class Ramp:
    """A rate in requests per second that changes from `start` to `end`.

    start, end: requests per second
    strategy: `linear` or `exponential`, which cannot start or end at 0
    With a given number of requests, the rate depends on how many of them were sent, as with `--ramp-up-strategy` of
    `vllm bench serve`. In a stage, or with a given duration, it depends on the time.
    """

    start: float
    end: float
    strategy: str = "linear"

    def __post_init__(self) -> None:
        if self.strategy not in STRATEGIES:
            raise ConfigError(f"Ramp: strategy = {short(self.strategy)} is not known; {choices_text(None, STRATEGIES)}")
        least = 0.0 if self.strategy == "linear" else 1e-9
        for name in ("start", "end"):
            checked_number(f"Ramp: {name}", getattr(self, name), least, whole=False, one=True)
        if self.start == self.end == 0:
            raise ConfigError("Ramp: start and end are both 0; expected a rate above 0 at one of them")

    def at(self, progress: Floats) -> Floats:
        """The rate in requests per second at a fraction of the ramp, from 0 to 1."""
        if self.strategy == "linear":
            return self.start + (self.end - self.start) * progress
        return np.asarray(self.start * (self.end / self.start) ** progress)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bursts:
    """Periodic bursts: every `every_s` seconds, requests come at `burst_rate` for `burst_s` seconds, else at `rate`.

    rate, burst_rate: requests per second outside and during a burst; rate may be 0
    every_s, burst_s: period of the bursts and duration of each, in seconds
    """

    rate: float
    burst_rate: float
    every_s: float
    burst_s: float

    def __post_init__(self) -> None:
        checked_number("Bursts: rate", self.rate, 0.0, whole=False, one=True)
        checked_number("Bursts: burst_rate", self.burst_rate, 1e-9, whole=False, one=True)
        checked_number("Bursts: every_s", self.every_s, 1e-9, whole=False, one=True)
        checked_number("Bursts: burst_s", self.burst_s, 1e-9, self.every_s, whole=False, one=True)

    @property
    def mean(self) -> float:
        """Requests per second, averaged over a period."""
        return (self.rate * (self.every_s - self.burst_s) + self.burst_rate * self.burst_s) / self.every_s

    def stages(self, seconds: float, *, whole: bool) -> tuple[Stage, ...]:
        """Alternating quiet and burst stages for a duration.

        seconds: duration
        whole: extend it to the end of the last period
        Raises ConfigError if there would be too many stages.
        """
        cycles = ceil(seconds / self.every_s - 1e-9)
        if cycles > 10**6:
            raise ConfigError(
                f"Bursts: every_s = {amount_text(self.every_s)} makes {amount_text(cycles)} cycles; expected up to "
                f"{amount_text(10**6)}"
            )
        found = [Stage(self.rate, self.every_s - self.burst_s), Stage(self.burst_rate, self.burst_s)] * cycles
        if not whole:
            begun = (cycles - 1) * self.every_s
            quiet = min(seconds - begun, self.every_s - self.burst_s)
            found[-2:] = [Stage(self.rate, quiet), Stage(self.burst_rate, seconds - begun - quiet)]
        return tuple(stage for stage in found if stage.seconds > 0)


@dataclass(frozen=True, slots=True)
class Stage:
    """A part of a run with a constant or changing rate, and its duration."""

    rate: float | Ramp
    seconds: float

    @property
    def due(self) -> float:
        """Expected number of requests in the stage."""
        return float(self.due_at(np.array(self.seconds)))

    def due_at(self, after_s: Floats) -> Floats:
        """Expected number of requests from the start of the stage up to given times in seconds."""
        if not isinstance(self.rate, Ramp):
            return self.rate * after_s
        start, end = self.rate.start, self.rate.end
        if start == end or self.rate.strategy == "linear":
            return np.asarray(start * after_s + (end - start) * after_s**2 / (2.0 * self.seconds))
        growth = log(end / start) / self.seconds
        return np.asarray(start / growth * np.expm1(growth * after_s))

    def when(self, due: Floats) -> Floats:
        """Seconds from the start of the stage until this number of requests is expected; the inverse of `due_at`."""
        if not isinstance(self.rate, Ramp):
            return due / self.rate
        start, end = self.rate.start, self.rate.end
        if start == end or self.rate.strategy == "linear":
            root = np.sqrt(np.maximum(start**2 + 2.0 * (end - start) * due / self.seconds, 0.0))
            return np.asarray(2.0 * due / np.maximum(start + root, 1e-300))
        growth = log(end / start) / self.seconds
        return np.asarray(np.log1p(growth * due / start) / growth)


Rate = float | Ramp | Bursts | tuple[Stage, ...]


def read_rate(rate: Any) -> Rate:
    """The rate given by a user: a number above 0 or inf, a `Ramp`, `Bursts`, or stages `[(rate, seconds), …]`.

    Raises ConfigError for anything else.
    """
    if isinstance(rate, Ramp | Bursts):
        return rate
    if isinstance(rate, Sequence) and not isinstance(rate, str) and rate:
        return _read_stages(rate)
    number = inf if _is_inf(rate) else as_number(rate)
    if not isinstance(number, float) or not number > 0:
        expected = "requests per second above 0, inf, stages [(rate, seconds), …], a Ramp or Bursts"
        raise ConfigError(f"Traffic: rate = {short(rate)} is not allowed; expected {expected}")
    return number


def read_burstiness(burstiness: Any) -> float:
    """The shape of the distribution of gaps: above 0, inf for constant gaps. Raises ConfigError for anything else."""
    if _is_inf(burstiness):
        return inf
    return float(checked_number("Traffic: burstiness", burstiness, 1e-3, whole=False, one=True))


def requests_of(rate: Rate, seconds: float | None) -> int | None:
    """Number of requests that a rate determines: those of its stages, or of a duration; None if unlimited."""
    if isinstance(rate, tuple):
        return round(sum(stage.due for stage in rate))
    return None if seconds is None else round(sum(stage.due for stage in stages_of(rate, None, seconds)))


def stages_of(rate: Rate, count: float | None, seconds: float | None) -> tuple[Stage, ...]:
    """A rate as stages for a duration in seconds, or for at least a number of requests."""
    if isinstance(rate, tuple):
        return rate
    if isinstance(rate, Bursts):
        return rate.stages((count or 0) / rate.mean if seconds is None else seconds, whole=seconds is None)
    if seconds is None and not isinstance(rate, Ramp):
        seconds = (count or 0) / rate
    return (Stage(rate, seconds or 0.0),)


def _read_stages(stages: Sequence[Any]) -> tuple[Stage, ...]:
    found = []
    for number, stage in enumerate(stages):
        where = f"Traffic: stage {number} of rate"
        if isinstance(stage, Stage):
            found.append(stage)
            continue
        if not isinstance(stage, Sequence) or isinstance(stage, str) or len(stage) != 2:
            raise ConfigError(f"{where} = {short(stage)} is not allowed; expected (requests per second, seconds)")
        rate, seconds = stage
        if not isinstance(rate, Ramp):
            rate = float(checked_number(f"{where}: requests per second", rate, 0.0, whole=False, one=True))
        found.append(Stage(rate, float(checked_number(f"{where}: seconds", seconds, 1e-9, whole=False, one=True))))
    if not 1 <= sum(stage.due for stage in found) <= MOST:
        raise ConfigError(f"Traffic: the stages of rate = {short(stages)} make no request, or over {amount_text(MOST)}")
    return tuple(found)


def _is_inf(value: Any) -> bool:
    return isinstance(value, float) and value == inf
