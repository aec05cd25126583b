"""Data of a page in addition to its formulas: initial state, controls, and text of the Python call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from graphsim.compile.symbols import numbers_of
from graphsim.deployment.deployment import Deployment, EngineRef, HardwareRef
from graphsim.deployment.inference import Inference, Requests
from graphsim.export.explore.bands import bands_of
from graphsim.export.explore.controls import OPTIONS, options_of
from graphsim.export.explore.deployments import COMMON, STRATEGIES, Choice, Deployments
from graphsim.export.explore.printing import STATED
from graphsim.export.explore.rates import PLACES, SCALES, rates_among
from graphsim.hardware import Hardware, list_hardware, load_hardware
from graphsim.lora.profile import EngineProfile
from graphsim.result import COVERAGE
from graphsim.sweeps.best import prices_of


def manifest_of(
    asked: Deployment, requests: Requests, found: Deployments, devices: Sequence[Hardware], degrees: Sequence[int]
) -> dict[str, Any]:
    """The page's data, without prices per hour and the text of the call."""
    start = _start(asked, requests, found)
    rates = rates_among(found, devices, requests)
    scaled = [name for name in SCALES if name in rates["scales"].values()]
    if len(rates["unscaled"]) == len({(choice.engine, choice.device) for choice in found.found}):
        scaled = []
    options = options_of(start, asked.adapter or COMMON) | dict.fromkeys(scaled, list(PLACES))
    return {
        "model": asked.model.name, "engine": asked.engine_name, "precision": asked.precision.name,
        "strategies": STRATEGIES, "start": start | dict.fromkeys(scaled, 1.0), "values": _values(found, requests),
        "options": options, "coverage": COVERAGE,
        "bands": {choice.key: bands_of(deployment, requests, options)
                  for choice, deployment in _opened(found, start).items()},
        "refused": found.refused, "causes": STATED,
        "engines": list(dict.fromkeys(choice.engine for choice in found.found)),
        "devices": {device.name: device.title for device in devices}, "degrees": degrees,
        "counts": {tp: _count(asked, tp) for tp in degrees}, "scaled": scaled, **rates,
    }  # fmt: skip


def prices_among(price_per_hour: Mapping[str, float] | float | None, devices: Sequence[Hardware]) -> dict[str, float]:
    """Price per hour of each device that has one, by name. Raises ConfigError as `gs.best` does."""
    known = {device.name: device for device in devices}
    if isinstance(price_per_hour, Mapping):
        named = {load_hardware(name).name for name in price_per_hour}
        known = {name: device for name, device in known.items() if name in named}
    return prices_of(price_per_hour, known) or {}


def _count(asked: Deployment, tp: int) -> float:
    """Number of devices of one replica."""
    return float(replace(asked.parallelism, tp=tp, dp=1.0).devices)


def _start(asked: Deployment, requests: Requests, found: Deployments) -> dict[str, Any]:
    """The initial state of the page: the requested choice, or the first one that can be run."""
    adapter = asked.adapter or COMMON
    wanted = adapter.strategy if asked.adapter else "base"
    engine, device, tp = asked.engine_name, asked.device.name, int(asked.parallelism.tp)
    like = [c for c in found.found if (c.engine, c.device, c.tp) == (engine, device, tp)] or list(found.found)
    choice = next((c for c in like if c.strategy == wanted), like[0])
    numbers = {name: getattr(adapter, name) for name in ("rank", "active_adapters", "max_loras", "adapter_share")}
    numbers |= {name: getattr(requests, name) for name in ("batch", "input_tokens", "output_tokens")}
    numbers["dp"] = asked.parallelism.dp
    return {
        "engine": choice.engine, "device": choice.device, "tp": choice.tp, "strategy": choice.strategy,
        **{name: float(numbers[name]) for name in OPTIONS},
    }  # fmt: skip


def _opened(found: Deployments, start: dict[str, Any]) -> dict[Choice, Deployment]:
    """The initial deployment of the page under each strategy."""
    names = ("engine", "device", "tp")
    return {choice: deployment for choice, deployment in found.found.items()
            if all(getattr(choice, name) == start[name] for name in names)}  # fmt: skip


def _values(found: Deployments, requests: Requests) -> dict[str, float]:
    """Values of all variables that no control changes."""
    values: dict[str, float] = {}
    for deployment in found.found.values():
        numbers = numbers_of(Inference(deployment=deployment, requests=requests))
        values |= {name: float(value) for name, value in numbers.items()}
    return {name: value for name, value in values.items() if name not in OPTIONS}


def named(thing: Any, name: str) -> str:
    """A model, device or engine as Python text: the argument itself if it is a name or a path."""
    return repr(str(thing) if isinstance(thing, str | Path) else name)


def devices_named(hardware: HardwareRef | None, devices: Sequence[Hardware]) -> dict[str, str]:
    """Each device as Python text by name, the first one as it was requested."""
    texts = {device.name: repr(str(device.path) if _own(device) else device.name) for device in devices}
    return texts | ({devices[0].name: named(hardware, devices[0].name)} if hardware is not None else {})


def _own(device: Hardware) -> bool:
    return device.path is not None and device.name not in list_hardware()


def engines_named(profiles: Mapping[str, EngineProfile], asked: Sequence[EngineRef | None]) -> dict[str, str]:
    """Each engine as Python text by name.

    asked: the argument given for each, in the same order
    """
    refs = dict(zip(profiles, asked, strict=False)) if len(profiles) == len(asked) else {}
    return {name: named(refs.get(name), name) for name in profiles}
