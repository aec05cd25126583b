"""The device of a training run: a file of the catalog, and the count if the text states one."""

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
    """Device and count (1 by default). Raises ConfigError with similar names if the catalog has no such device."""
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
    """A device of the catalog with the memory size and bandwidth that the text states."""
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
    """The device under a power limit: rates scale with the square root of the power above idle.

    Idle power (`graphsim.cost.power`) does no work. Clocks scale linearly with the rest at constant voltage, and with
    its cube root if the voltage falls with the clock; the square root is a compromise (assumed).
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
    """The device without its optional bridge to another one, if the text says that there is none."""
    if not re.search(r"\bno nvlink\b", text, re.IGNORECASE):
        return device
    return replace(device, links=tuple(link for link in device.links if "nvlink" not in link.name.lower()))
