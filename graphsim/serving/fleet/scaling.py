"""Autoscaling: the number of replicas by load, with the start-up time of a new one."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, inf
from typing import Any

import numpy as np

from graphsim.analysis.slots import footprint_of
from graphsim.deployment.deployment import DEFAULT_ENGINE, Deployment
from graphsim.errors import ConfigError
from graphsim.units import amount_text, as_number, bounds_text, short

EVERY_S, TOLERANCE, CALM_S = 15.0, 0.1, 300.0
"""Of Kubernetes' horizontal pod autoscaler: its sync period, the ratio within which it does nothing, and for how long a
lower number must have been enough before it takes replicas away (kubernetes.io, Horizontal Pod Autoscaling)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaling:
    """Keeps the load of each replica near a target, as Kubernetes' autoscaler does.

    The wanted number is ceil(replicas x mean load / target), unless the mean is within the tolerance of the target.

    target: requests running and waiting in each replica
    least, most: bounds of the number of replicas
    every_s: seconds between decisions
    calm_s: seconds for which fewer
        replicas must have been enough before any is removed
    cold_start_s: seconds from a decision until a new replica takes requests; by default the time to load its weights
        from disk to the device (`weights_load_s`); start_s: further seconds of an engine's start, such as compiling and
        graph capture
    """

    target: float
    least: int = 1
    most: int = 64
    every_s: float = EVERY_S
    calm_s: float = CALM_S
    cold_start_s: float | None = None
    start_s: float = 0.0

    def __post_init__(self) -> None:
        """Raise ConfigError for invalid numbers."""
        for name, least in (("target", None), ("every_s", None), ("calm_s", 0.0), ("start_s", 0.0)):
            _check(name, getattr(self, name), least)
        if self.cold_start_s is not None:
            _check("cold_start_s", self.cold_start_s, 0.0)
        for name in ("least", "most"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ConfigError(f"scaling: {name} = {short(value)} is not allowed; expected a whole number from 1")
        if self.least > self.most:
            raise ConfigError(f"scaling: least = {amount_text(self.least)} is above most = {amount_text(self.most)}")

    def wanted(self, replicas: int, load: float) -> int:
        """The wanted number, from the current replicas and all their requests."""
        mean = load / max(replicas, 1)
        if abs(mean / self.target - 1.0) <= TOLERANCE:
            return replicas
        return min(max(ceil(replicas * mean / self.target), self.least), self.most)


def _check(name: str, value: Any, least: float | None) -> None:
    number = as_number(value)
    if not isinstance(number, float) or number == inf or not (number > 0.0 if least is None else number >= least):
        bound = "above 0" if least is None else bounds_text(least)
        raise ConfigError(f"scaling: {name} = {short(value)} is not allowed; expected a number {bound}")


def weights_load_s(deployment: Deployment) -> float:
    """Seconds to load the weights of a replica: from one disk, then over each device's own host link.

    bytes / cold_disk_bytes_per_s of the engine's profile, as adapters that are not in the page cache, and bytes of one
    device / host_link; the two overlap, so that the slower one counts.
    """
    whole = deployment.under(DEFAULT_ENGINE)
    each = float(np.max(footprint_of(whole).weights_bytes))
    engine, link = whole.engine, whole.device.host_link
    if engine is None or not float(link.bytes_per_s) > 0.0:
        raise ConfigError(f"hardware '{whole.device.name}' has no host_link; add one to its file, or give cold_start_s")
    devices = float(whole.parallelism.devices)
    return max(each * devices / float(engine.cold_disk_bytes_per_s), each / float(link.bytes_per_s))
