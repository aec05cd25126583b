"""The device that a table of training speaks of: a file of the catalog, and how many where the text says so."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import lru_cache

from graphsim.cost.power import power_of
from graphsim.errors import ConfigError
from graphsim.files.device_names import nearest_devices
from graphsim.hardware import Hardware, device_described, load_hardware


@lru_cache(maxsize=256)
def device_of(text: str) -> tuple[Hardware, int]:
    """Device and count (1 where nothing is said). Raises ConfigError, naming near ones, where the catalog has none."""
    found = device_described(text)
    if found is None and (own := _of_its_own(text)):
        return own, 1
    if found is None:
        near = nearest_devices(text)
        more = f"; nearest are {', '.join(near)}" if near else ""
        raise ConfigError(f"hardware = {text!r} names no device of the catalog{more}")
    return _as_wired(load_hardware(found.name), text), found.count or 1


_MEMORY = re.compile(r"[-\s](\d+)\s*GB\b.*?(\d+(?:\.\d+)?)\s*TB/s", re.IGNORECASE)


def _of_its_own(text: str) -> Hardware | None:
    """A device of the catalog with another memory, where the text says how large and how fast that is."""
    stated = _MEMORY.search(text)
    if not stated:
        return None
    found = device_described(text[: stated.start()])
    if found is None:
        return None
    device = load_hardware(found.name)
    size, rate = float(stated[1]) * 2.0**30, float(stated[2]) * 1e12
    return _limited(replace(device, memory_bytes=size, memory_bytes_per_s=rate), text)


def _limited(device: Hardware, text: str) -> Hardware:
    """The device under a limit of its power: rates by the root of what is left for work.

    What the device draws while it waits (`graphsim.cost.power`) does no work; of the rest, clocks take between all,
    at a voltage that cannot fall, and the cube root, at one that falls with them. The root is between (a guess).
    """
    stated = re.search(r"(\d+) W limit", text)
    power = power_of(device)
    if not stated or power is None:
        return device
    idle_w, usual_w = float(power.idle_w), float(power.limit_w)
    share = min(max(float(stated[1]) - idle_w, 0.0) / (usual_w - idle_w), 1.0) ** 0.5
    peaks = {name: peak * share for name, peak in device.flops_per_s.items()}
    return replace(device, flops_per_s=peaks, clock_hz=device.clock_hz * share, power_w=float(stated[1]))


def _as_wired(device: Hardware, text: str) -> Hardware:
    """The device without the bridge to another one that its users may leave out."""
    if not re.search(r"\bno nvlink\b", text, re.IGNORECASE):
        return device
    return replace(device, links=tuple(link for link in device.links if "nvlink" not in link.name.lower()))
