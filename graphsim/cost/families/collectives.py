"""Collectives between devices: all-reduce, all-gather, reduce-scatter, all-to-all, and vLLM's own all-reduce.

    t = exp(surface) · ( start · (devices / 2)^growth + wire · (devices / 2)^(spread - 1) · wire bytes / bandwidth )

The wire bytes are what the bandwidth-optimal algorithm sends per device: (g-1)/g of the message, twice
that for an all-reduce (Patarasuk and Yuan, "Bandwidth optimal all-reduce algorithms", 2009). The
surface over log2 of the message and of the devices carries the switches between protocols and
algorithms; beyond the largest measured message the bandwidth is extrapolated, beyond the most devices the start time.

This is one node. The bandwidth is that of the links which the group has there (`cost/interconnect.py`). A group of
several nodes works in each of them like one node, and on the network at the same time: each device sends its part over
its own NIC, the slower of the two determines the time, and the hops between nodes are added. So NCCL's bus bandwidth
is the lesser of what the links within nodes and all NICs between them give (two nodes of A100 with four 200 Gbit/s
NICs each: 91 of 100 GB/s, nccl-tests issue 100).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from graphsim.cost.families.blend import KernelFit, entry_of, fitted_s
from graphsim.cost.families.formats import element_bytes
from graphsim.cost.families.overlap import overlapped
from graphsim.cost.interconnect import Leg, node_and_beyond, slowest_s
from graphsim.cost.surfaces.fitting import SurfaceSpec, fit_constants, fit_surface
from graphsim.cost.surfaces.surface import Surface
from graphsim.cost.surfaces.tables import Array
from graphsim.errors import ConfigError, choices_text
from graphsim.hardware import Hardware
from graphsim.ops.collectives import direct_part, ring_part
from graphsim.units import Num

if TYPE_CHECKING:
    import pandas as pd

KINDS = {
    "all_reduce": 2.0, "all_gather": 1.0, "reduce_scatter": 1.0, "alltoall": 1.0,
    "custom_allreduce": 2.0, "custom_allreduce_eager": 2.0,
}  # fmt: skip
"""How many times (devices - 1)/devices of the message each device sends."""

NIC_SHARE = 0.94
"""Share of a NIC's rate that NCCL reaches: 46 to 48 GB/s of 400 Gbit/s (AddyLaddy of NVIDIA, nccl-tests issue 290)."""

SMALLEST_BYTES = 256.0
"""Size of a message whose time is the start of a collective alone."""

LIKE = {"custom_allreduce_eager": "custom_allreduce", "custom_allreduce": "all_reduce", "alltoall": "all_gather",
        "reduce_scatter": "all_gather", "all_gather": "reduce_scatter"}  # fmt: skip
"""The collective whose constants are used for one that was not measured."""

START = {"start_s": 1.2e-5, "growth": 0.7, "wire": 1.5, "spread": 1.0}
"""Before any fit: see `_skeleton` for what each constant is."""

CUSTOM_START = {"near": 1.5, "far_s": 1e-5}
EAGER_START = {"host_s": 3e-5}

CUSTOM_LIMIT_BYTES = 8.0 * 2**20
"""From this size on vLLM uses NCCL's all-reduce (`custom_all_reduce.py`, max_size)."""


def start_of(kind: str) -> dict[str, float]:
    """The constants of a kind before any fit."""
    custom = CUSTOM_START if kind.startswith("custom") else {}
    return START | custom | (EAGER_START if kind.endswith("eager") else {})


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectiveShape:
    """`message_bytes` is the whole tensor: the reduced tensor, or that of all gathered or scattered parts.

    stride: distance in devices between members of the group
    """

    family: ClassVar[str] = "collectives"

    kind: str
    message_bytes: Num
    devices: Num
    stride: Num = 1.0


def _checked(kind: str) -> str:
    if kind not in KINDS:
        raise ConfigError(f"collective '{kind}' is not known; {choices_text(kind, KINDS)}")
    return kind


def wire_bytes(shape: CollectiveShape) -> Num:
    """Bytes that each device sends, at least."""
    return KINDS[_checked(shape.kind)] * shape.message_bytes * (1.0 - 1.0 / shape.devices)


def leg_s(leg: Leg, shape: CollectiveShape) -> Num:
    """Seconds at the datasheet's bandwidth of what a device sends on one level."""
    part = direct_part if shape.kind == "alltoall" else ring_part
    sent = KINDS[_checked(shape.kind)] * part(shape.devices, leg.below, leg.count) * shape.message_bytes
    return sent * (leg.relayed if shape.kind == "alltoall" else 1.0) / leg.bytes_per_s


def roofline_s(hardware: Hardware, shape: CollectiveShape) -> Num:
    """Time of the bytes that a device sends at the datasheet's bandwidth, on the slowest level."""
    return slowest_s(hardware, shape.devices, lambda leg: leg_s(leg, shape), shape.stride)


def _skeleton(c: Mapping[str, float], hardware: Hardware, shape: CollectiveShape) -> Num:
    """Time before the surface, in one node.

    start_s, growth: of an empty message between two devices, and the power of the devices with which it grows
    wire, spread: multiple of the datasheet's wire time between two devices, and one more than its power of them
    near, far_s: that multiple for vLLM's own kernels, and NCCL's extra time for messages too long for them
    host_s: of one eager call, during which the devices work
    """
    pairs = shape.devices / 2.0
    wire_s = _node_s(hardware, shape) * np.power(pairs, c.get("spread", 1.0) - 1.0)
    time = c["start_s"] * np.power(pairs, c["growth"]) + c["wire"] * wire_s
    if "near" in c:
        own = c["start_s"] * np.power(pairs, c["growth"]) + np.minimum(c["near"], c["wire"]) * wire_s
        time = np.where(np.less(shape.message_bytes, CUSTOM_LIMIT_BYTES), own, time + c["far_s"])
    return overlapped(time, c["host_s"]) if "host_s" in c else time


def _node_s(hardware: Hardware, shape: CollectiveShape) -> Num:
    """Wire bytes of a group within one node, at the datasheet's bandwidth."""
    node, _ = node_and_beyond(hardware, shape.devices)
    return wire_bytes(shape) * (node.relayed if shape.kind == "alltoall" else 1.0) / node.bytes_per_s


def _coordinates(shape: CollectiveShape) -> dict[str, Num]:
    return {"message": np.log2(shape.message_bytes), "devices": np.log2(shape.devices)}


LAYOUT = SurfaceSpec(
    knots={"message": [float(x) for x in range(8, 31)], "devices": [1.0, 2.0, 3.0]},
    terms=[("message", "devices")],
    smooth=0.1,
    flat=0.01,
)  # fmt: skip

CUSTOM_LAYOUT = replace(LAYOUT, smooth=0.3)
"""vLLM's own all-reduce is measured at half as many points as the others, with more noise."""


LEVELS = (KINDS,)
SURFACES = (LAYOUT, CUSTOM_LAYOUT)


def needed(kind: str) -> Collection[str]:
    """Names of the constants of a kind's fit."""
    return start_of(kind)


def _entry(parameters: Mapping[str, Any], kind: str) -> KernelFit:
    """The fit of a kind, else of the most similar one."""
    tried, name = [], kind
    while name and name not in tried:
        if name in parameters:
            entry: KernelFit = parameters[name]
            return entry
        tried.append(name)
        name = LIKE.get(name, "")
    return {"constants": START}


def latency_s(parameters: Mapping[str, Any], hardware: Hardware, shape: CollectiveShape) -> Num:
    """Seconds of one collective, from fitted `parameters` (of `fit`); no bytes or one device, no time.

    Raises ConfigError for an unknown kind, HardwareError if the device states no link.
    """
    kind = _checked(shape.kind)
    entry = entry_of(parameters, (kind,), lambda one: _entry(one, kind))
    if not hardware.links and not np.any(np.greater(shape.devices, 1)):
        return 0.0
    safe = CollectiveShape(
        kind=kind, message_bytes=np.maximum(shape.message_bytes, 1.0), devices=np.maximum(shape.devices, 2.0),
        stride=shape.stride,
    )  # fmt: skip
    time = _nodes_s(entry, hardware, safe)
    alone = np.less_equal(shape.devices, 1) | np.less_equal(shape.message_bytes, 0)
    return np.where(alone, 0.0, np.maximum(time, roofline_s(hardware, safe)))


def _nodes_s(entry: KernelFit, hardware: Hardware, shape: CollectiveShape) -> Num:
    """Seconds of a group of any number of nodes; of one node, those that were measured.

    If each node holds one device of the group, only the time of the smallest message remains of them.
    """
    node, beyond = node_and_beyond(hardware, shape.devices, shape.stride)
    message = shape.message_bytes * (node.count / shape.devices if shape.kind == "alltoall" else 1.0)
    alone = np.less_equal(node.count, 1.0 + 1e-9)
    inside = replace(
        shape,
        message_bytes=np.where(alone, SMALLEST_BYTES, message)[()],
        devices=np.maximum(node.count, 2.0),
        stride=1.0,
    )
    time = fitted_s(entry, lambda c: _skeleton(c, hardware, inside), lambda: _coordinates(inside))
    for leg in beyond:
        hops = _hops(shape.kind, leg.count)
        time = np.maximum(time, leg_s(leg, shape) / NIC_SHARE) + hops * leg.link.latency_s
    return time


def _hops(kind: str, nodes: Num) -> Num:
    """Sequential hops between nodes: up and down a tree, around a ring, or straight to all at once."""
    if kind == "alltoall":
        return np.minimum(nodes - 1.0, 1.0)
    return 2.0 * np.log2(nodes) if KINDS[kind] == 2.0 else nodes - 1.0


def kind_of(op: str, kernel: str) -> str:
    """The collective that a reference row's op and kernel name."""
    return "custom_allreduce_eager" if op == "custom_allreduce" and "eager" in kernel.lower() else op


def shape_of(frame: pd.DataFrame) -> CollectiveShape:
    """The shape of reference rows of one `op`, `dtype` and `kernel`; `message_size` counts elements.

    Raises ConfigError for an unknown dtype.
    """
    op, dtype = str(frame["op"].iloc[0]), str(frame["dtype"].iloc[0])
    kernel = str(frame["kernel"].iloc[0]) if "kernel" in frame.columns else ""
    return CollectiveShape(
        kind=kind_of(op, kernel),
        message_bytes=frame["message_size"].to_numpy(dtype=float) * element_bytes(dtype, op),
        devices=frame["num_devices"].to_numpy(dtype=float),
    )


def fit(frame: pd.DataFrame, hardware: Hardware) -> dict[str, Any]:
    """Constants and surface per kind of collective from reference rows."""
    parts: dict[str, list[tuple[CollectiveShape, Array]]] = {}
    for _, rows in frame.groupby(["op", "dtype", "kernel"], sort=True, dropna=False):
        shape = shape_of(rows)
        parts.setdefault(shape.kind, []).append((shape, rows["latency_us"].to_numpy(dtype=float) * 1e-6))
    return {kind: _fit_one(kind, parts[kind], hardware) for kind in KINDS if kind in parts}


def _fit_one(kind: str, parts: list[tuple[CollectiveShape, Array]], hardware: Hardware) -> dict[str, Any]:
    shape = CollectiveShape(
        kind=kind,
        message_bytes=np.concatenate([np.asarray(shape.message_bytes) for shape, _ in parts]),
        devices=np.concatenate([np.asarray(shape.devices) for shape, _ in parts]),
    )
    measured_s = np.concatenate([seconds for _, seconds in parts])
    constants = fit_constants(
        lambda c: np.asarray(_skeleton(c, hardware, shape)), start_of(kind), np.log(measured_s), hold=3e-4, rounds=40
    )
    target = np.log(measured_s / _skeleton(constants, hardware, shape))
    coordinates = {key: np.asarray(value) for key, value in _coordinates(shape).items()}
    layout = CUSTOM_LAYOUT if kind.startswith("custom") else LAYOUT
    surface = fit_surface(layout, coordinates, target)
    return {"constants": constants, "surface": _rising(surface, constants, kind, hardware).to_json()}


_MOST_IN_NODE = 6.0
"""Largest number of devices in one node, as a power of two, for which a longer message must not be faster: NVL72 holds
64.
"""

_STEPS = 8
"""Number of steps in which the skeleton's rise between two knots of the message is examined."""


def _rising(surface: Surface, constants: Mapping[str, float], kind: str, hardware: Hardware) -> Surface:
    """The surface, lifted where a longer message would otherwise be faster than a shorter one.

    One more column covers all groups of one node that are larger than any measured one.
    """
    (term,) = surface.terms
    messages, devices = term.knots
    columns = [
        _lifted(values, _growth(constants, kind, hardware, messages, 2.0 ** np.array([d])))
        for values, d in zip(term.values.T, devices, strict=True)
    ]
    more = 2.0 ** np.arange(devices[-1] + 1.0, _MOST_IN_NODE + 1.0)
    beyond = _lifted(columns[-1], _growth(constants, kind, hardware, messages, more))
    knots = (messages, np.append(devices, devices[-1] + 1.0))
    return Surface(terms=(replace(term, knots=knots, values=np.stack([*columns, beyond], axis=1)),))


def _growth(constants: Mapping[str, float], kind: str, hardware: Hardware, messages: Array, devices: Array) -> Array:
    """By how much the surface's logarithm may fall from each message to the next: no faster than the skeleton rises,
    at its slowest point between the two and in the group where it rises least.
    """
    between = messages[:-1, None] + np.diff(messages)[:, None] * np.linspace(0.0, 1.0, _STEPS + 1)
    shape = CollectiveShape(kind=kind, message_bytes=2.0 ** between[..., None], devices=devices)
    growth: Array = _STEPS * np.diff(np.log(_skeleton(constants, hardware, shape)), axis=1).min(axis=(1, 2))
    return growth


def _lifted(values: Array, growth: Array) -> Array:
    """Values of which none falls by more than the skeleton grows."""
    level = np.concatenate([[0.0], np.cumsum(growth)])
    lifted: Array = np.maximum.accumulate(values + level) - level
    return lifted
