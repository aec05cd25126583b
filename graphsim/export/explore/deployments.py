"""The deployments of a page, by engine, device, degree and strategy, and the reasons why others are left out."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product

from graphsim.deployment.deployment import DEFAULT_ENGINE, Deployment, EngineRef, HardwareRef
from graphsim.deployment.inference import Requests
from graphsim.deployment.refusals import require_runs
from graphsim.errors import ConfigError, GraphsimError
from graphsim.hardware import Hardware, list_hardware, load_hardware
from graphsim.lora.config import LoraConfig
from graphsim.lora.profile import EngineProfile, load_profile
from graphsim.units import short

STRATEGIES = ("base", "dynamic", "merge")
"""Strategies of an adapter on a page: no adapter, applied in every step, merged into the weights."""

DEGREES = (1, 2, 4, 8)
"""Default degrees of tensor parallelism."""

_RELATIVES = 3
"""Number of devices of the same architecture offered in addition to the requested one."""

COMMON = LoraConfig(rank=16)
"""The default adapter, for a deployment without one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """A combination of engine, device, degree and strategy on a page; `key` is its name in the page."""

    engine: str
    device: str
    tp: int
    strategy: str

    @property
    def key(self) -> str:
        """The choice as one text."""
        return f"{self.engine}/{self.device}/{self.tp}/{self.strategy}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployments:
    """The deployments of a page by `Choice`, and the reason for each refused one by its key."""

    found: dict[Choice, Deployment]
    refused: dict[str, str]


def devices_of(asked: Hardware, others: str | Sequence[HardwareRef] | None) -> list[Hardware]:
    """The devices of a page, the requested one first.

    others: `all` for the whole catalog, or further devices; None for a few of the same architecture
    Raises ConfigError for anything else.
    """
    if others is None:
        chosen = _relatives(asked)
    elif isinstance(others, str):
        if others != "all":
            raise ConfigError(f"devices = {short(others)} is not allowed; expected 'all' or a list of devices")
        chosen = [load_hardware(name) for name in list_hardware()]
    elif isinstance(others, Iterable):
        chosen = [load_hardware(other) for other in others]
    else:
        raise ConfigError(f"devices = {short(others)} is not allowed; expected 'all' or a list of devices")
    different = {device.name: device for device in chosen}
    return [asked, *[device for name, device in different.items() if name != asked.name]]


def _relatives(asked: Hardware) -> list[Hardware]:
    """Devices of the same architecture with the most similar memory bandwidth."""
    same = [device for device in map(load_hardware, list_hardware())
            if device.architecture == asked.architecture and device.name != asked.name]  # fmt: skip

    def distance(device: Hardware) -> float:
        return abs(math.log(float(device.memory_bytes_per_s) / float(asked.memory_bytes_per_s)))

    return sorted(same, key=distance)[:_RELATIVES]


def engines_of(asked: Deployment, others: Sequence[EngineRef]) -> dict[str, EngineProfile]:
    """The engines of a page by name, that of the deployment first. Raises ConfigError for an unknown one."""
    if isinstance(others, str) or not isinstance(others, Sequence):
        raise ConfigError(f"engines = {short(others)} is not allowed; expected a list of engines")
    profiles = [load_profile(ref) for ref in (asked.engine or DEFAULT_ENGINE, *others)]
    found: dict[str, EngineProfile] = {}
    for profile in profiles:
        found.setdefault(profile.name, profile)
    return found


def deployments_of(
    asked: Deployment,
    engines: Mapping[str, EngineProfile],
    devices: Sequence[Hardware],
    degrees: Sequence[int],
    requests: Requests,
) -> Deployments:
    """Every engine on every device at every degree under every strategy, except what cannot be run.

    Raises the first error (InfeasibleError, for example) if none of them can be run.
    """
    found: dict[Choice, Deployment] = {}
    refused: dict[str, str] = {}
    first: GraphsimError | None = None
    named = {device.name: device for device in devices}
    for engine, device, tp, strategy in product(engines, named, degrees, STRATEGIES):
        choice = Choice(engine=engine, device=device, tp=tp, strategy=strategy)
        try:
            found[choice] = _deployment(asked, named[device], engines[engine], choice)
            require_runs(found[choice], requests)
        except GraphsimError as error:
            found.pop(choice, None)
            refused[choice.key] = str(error)
            first = first or error
    if not found and first is not None:
        raise first
    return Deployments(found=found, refused=refused)


def _deployment(asked: Deployment, device: Hardware, engine: EngineProfile, choice: Choice) -> Deployment:
    parallelism = replace(asked.parallelism, tp=choice.tp, sp=choice.tp if asked.parallelism.sp > 1 else 1)
    return Deployment(
        asked.model, device, parallelism=parallelism, precision=asked.precision, cost=asked.cost, passes=asked.passes,
        engine=engine, lora=adapter_of(asked, choice.strategy),
    )  # fmt: skip


def adapter_of(asked: Deployment, strategy: str) -> LoraConfig | None:
    """The deployment's adapter, or COMMON, under a strategy of a page; merged weights serve a single adapter."""
    adapter = asked.adapter or COMMON
    if strategy == "base":
        return None
    if strategy == "merge":
        return replace(adapter, strategy=strategy, active_adapters=1, adapter_share=1.0, max_loras=0, shares=())
    return replace(adapter, strategy=strategy)
