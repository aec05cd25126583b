"""Memory-bound kernels: element-wise operations, norms, rotary embedding, copies, host transfers.

    t = launch + bytes / bandwidth · (dram · miss + cache · (1 - miss))        on the device
    t = start + bytes / link · factor                                          from the host

Devices without such measurements use the traffic constants and launch overhead of the bfloat16 GEMMs.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from graphsim.cost.families.formats import element_bytes
from graphsim.cost.surfaces.fitting import fit_constants
from graphsim.errors import ConfigError, choices_text
from graphsim.hardware import Hardware
from graphsim.units import Num

if TYPE_CHECKING:
    import pandas as pd

STREAMS = {"add": 3.0, "activation": 3.0, "norm": 2.0, "rope": 2.0, "copy": 2.0}
"""Passes over the elements, reads and writes together, by kernel name; gated activations read two inputs."""

START = {"launch_clocks": 4500.0, "dram": 1.15, "cache": 0.7, "cache_fit": 0.7, "cache_edge": 4.0}
HOST_START = {"start_s": 1e-5, "link": 1.15}
LEVELS = (("device", "host"),)
SURFACES = ()


def needed(where: str) -> Collection[str]:
    """Names of the constants of a fit."""
    return HOST_START if where == "host" else START


@dataclass(frozen=True, slots=True, kw_only=True)
class ElementwiseShape:
    """`moved_bytes` read and written on the device, or sent over the host link if `host`."""

    family: ClassVar[str] = "elementwise"

    moved_bytes: Num
    host: bool = False


def traffic_s(c: Mapping[str, float], hardware: Hardware, moved_bytes: Num) -> Num:
    """Traffic time: `dram` times the datasheet's where the data misses the cache, `cache` times where it hits.

    The hit share is 1/(1+x) with x = (bytes / (cache_fit · cache))^cache_edge. `cache` may exceed
    `dram`, since small transfers do not fill the memory's pipeline; the edge is then kept so wide that more bytes
    never take less time.
    """
    hit, miss_cost = np.minimum(c["cache"], 3.0 * c["dram"]), c["dram"]
    widest = (hit + miss_cost) / np.maximum(hit - miss_cost, 1e-3)
    edge = np.minimum(np.minimum(c["cache_edge"], 12.0), widest)
    fill = np.power(moved_bytes * (1.0 / (np.maximum(hardware.cache_bytes, 1.0) * c["cache_fit"])), edge)
    slower: Num = miss_cost + (hit - miss_cost) / (1.0 + fill)
    return moved_bytes / hardware.memory_bytes_per_s * slower


def cached_floor_s(hardware: Hardware, moved_bytes: Num) -> Num:
    """The least time for bytes that may lie in the cache.

    Up to half the last-level cache may come from there, at up to five times the memory's rate;
    between half and all of it the memory's part grows to the whole.
    """
    inside = np.minimum(np.maximum(2.0 / np.maximum(hardware.cache_bytes, 1.0) * moved_bytes - 1.0, 0.2), 1.0)
    return moved_bytes / hardware.memory_bytes_per_s * inside


def latency_s(parameters: Mapping[str, Any], hardware: Hardware, shape: ElementwiseShape) -> Num:
    """Seconds of one kernel or transfer; no bytes, no time."""
    moved = shape.moved_bytes
    if shape.host:
        c = parameters.get("host", HOST_START)
        least = moved / hardware.host_link.bytes_per_s
        time = np.maximum(c["start_s"] + c["link"] * least, least)
    else:
        c = parameters.get("device", START)
        time = c["launch_clocks"] / hardware.clock_hz + traffic_s(c, hardware, moved)
        time = np.maximum(time, cached_floor_s(hardware, moved))
    return np.where(np.greater(moved, 0), time, 0.0)


def shape_of(frame: pd.DataFrame) -> ElementwiseShape:
    """The shape of rows of one `op`, `dtype` and `kernel`; `message_size` counts the elements.

    Raises ConfigError for a kernel or dtype without a known traffic.
    """
    op, dtype, kernel = (str(frame[name].iloc[0]) for name in ("op", "dtype", "kernel"))
    moved = frame["message_size"].to_numpy(dtype=float) * element_bytes(dtype, op)
    if op == "host_to_device":
        return ElementwiseShape(moved_bytes=moved, host=True)
    if op == "elementwise" and kernel not in STREAMS:
        raise ConfigError(f"kernel '{kernel}' of op '{op}' is not known; {choices_text(kernel, STREAMS)}")
    streams = STREAMS["copy"] if op == "copy" else STREAMS[kernel]
    return ElementwiseShape(moved_bytes=moved * streams)


def roofline_s(hardware: Hardware, shape: ElementwiseShape) -> Num:
    """Bytes at the datasheet's bandwidth."""
    rate = hardware.host_link.bytes_per_s if shape.host else hardware.memory_bytes_per_s
    return shape.moved_bytes / rate


def fit(frame: pd.DataFrame, hardware: Hardware) -> dict[str, Any]:
    """Constants from rows of ops `elementwise`, `copy` and `host_to_device`."""
    found: dict[str, Any] = {}
    for name, host, start in (("device", False, START), ("host", True, HOST_START)):
        rows = frame[(frame["op"] == "host_to_device") == host]
        if rows.empty:
            continue
        parts = [part for _, part in rows.groupby(["op", "dtype", "kernel"], sort=True, dropna=False)]
        shape = ElementwiseShape(moved_bytes=np.concatenate([shape_of(part).moved_bytes for part in parts]), host=host)
        measured_s = np.concatenate([part["latency_us"].to_numpy(dtype=float) for part in parts]) * 1e-6
        found[name] = fit_constants(
            lambda c, name=name, shape=shape: np.asarray(latency_s({name: c}, hardware, shape)),  # type: ignore[misc]
            start, np.log(measured_s), hold=3e-4,
        )  # fmt: skip
    return found


def borrow(gemm_parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Constants of memory-bound kernels from the fit of bfloat16 GEMMs."""
    entry = gemm_parameters.get("bfloat16")
    return {"device": {name: entry["constants"][name] for name in START}} if entry else {}
