"""The rates and sizes of a device that are variables of price formulas, by which devices of the same kind differ.

Everything else of a device (its number formats, cores and levels of the interconnect) determines the structure of the
formulas.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from graphsim.hardware import Hardware, Link
from graphsim.symbolic.substitute import names_of, with_fields

OWN = (
    "vector_flops_per_s", "memory_bytes", "memory_bytes_per_s", "cache_bytes", "clock_hz", "launch_s", "eager_launch_s",
)  # fmt: skip
"""Rates among a device's own numbers, in addition to its peaks and the rates of its links."""

OF_LINK = ("bytes_per_s", "latency_s")


def rates_of(hardware: Hardware) -> dict[str, Any]:
    """The rates of a device by name: `device.memory_bytes_per_s`, `device.flops_per_s.bf16`,
    `device.links.0.bytes_per_s`, `device.host_link.latency_s`, …; in SI units."""
    found: dict[str, Any] = {}

    def noted(name: str, value: Any) -> Any:
        found[name] = value
        return value

    _each(hardware, noted)
    return found


def with_rates(hardware: Hardware, values: Mapping[str, Any]) -> Hardware:
    """The device with other rates, those that are named as in `rates_of`."""
    return _each(hardware, lambda name, value: values.get(name, value))


def kind_of(hardware: Hardware) -> tuple[Any, ...]:
    """Everything that prices depend on except the device's rates, as plain values."""
    links = [*hardware.links, hardware.host_link]
    return (
        hardware.name,
        hardware.architecture,
        tuple(hardware.flops_per_s),
        *[_plain(getattr(hardware, name)) for name in names_of(Hardware) if name not in _NOT_PLAIN],
        *[_plain(getattr(link, name)) for link in links for name in names_of(Link) if name not in OF_LINK],
    )


_NOT_PLAIN = {"name", "title", "architecture", "flops_per_s", "links", "host_link", "path", "sources", "power_w", *OWN}
"""Fields that are rates, that are handled separately, or that do not affect prices."""


def has_many_rates(hardware: Hardware) -> bool:
    """Whether any rate is an array over scenarios."""
    return any(isinstance(value, np.ndarray) for value in rates_of(hardware).values())


def _plain(value: Any) -> Any:
    return float(value) if isinstance(value, np.generic | int) and not isinstance(value, bool) else value


def _each(hardware: Hardware, change: Callable[[str, Any], Any]) -> Hardware:
    """The device whose rates are changed one by one."""
    changes: dict[str, Any] = {name: change(f"device.{name}", getattr(hardware, name)) for name in OWN}
    changes["flops_per_s"] = {
        name: change(f"device.flops_per_s.{name}", peak) for name, peak in hardware.flops_per_s.items()
    }
    changes["links"] = tuple([_link(link, f"device.links.{at}", change) for at, link in enumerate(hardware.links)])
    changes["host_link"] = _link(hardware.host_link, "device.host_link", change)
    return with_fields(hardware, changes)


def _link(link: Link, name: str, change: Callable[[str, Any], Any]) -> Link:
    return with_fields(link, {field: change(f"{name}.{field}", getattr(link, field)) for field in OF_LINK})
