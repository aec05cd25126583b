"""The work of an exchange of tokens with their experts' devices: its shape, copies, bytes, and the lower bound of its
time.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from graphsim.cost.interconnect import node_and_beyond
from graphsim.errors import ConfigError, choices_text
from graphsim.hardware import Hardware, require_link
from graphsim.units import Num

LIKE = {
    "elastic_prefill": "normal", "elastic_decode": "low_latency", "one_sided": "two_sided", "two_sided": "low_latency",
    "normal": "low_latency", "low_latency": "normal",
}  # fmt: skip
"""For each kind of kernel, the kinds whose fit is used if it was not measured."""

PHASES = ("prepare", "dispatch", "combine", "both")

ROW_BYTES = {
    "unstated": 2.0, "bfloat16": 2.0, "fp8": 1.0 + 4.0 / 128.0, "nvfp4": 0.5 + 1.0 / 16.0, "fp4": 0.5 + 1.0 / 16.0,
}  # fmt: skip
"""Bytes per number of a dispatched row, scales included, by dtype; returning rows are in 16 bits except
`fp4`, which TensorRT-LLM's low-precision combine narrows them to. Rows of both ways that state none are taken to be in
fp8 there, as DeepEP's authors measure it."""

NORMAL_CORES = 20.0
"""Cores of a device that DeepEP's normal kernels use by default (`Buffer.num_sms`)."""

HOST_DEVICES = 4.0
"""Devices of a host whose NVLink domain is a rack: GB200 NVL72 has 18 compute trays of four."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExchangeShape:
    """One exchange: each of `ep` devices has `tokens` rows of `hidden` numbers for `topk` of `experts`.

    ep: 0 for all devices of `nodes` hosts
    backend: kernels, a name of LIKE
    phase: one of PHASES, `both` is dispatch and combine
    dtype: of the rows on their way there
    cores: used by normal kernels; 0 for their default
    busiest: load of the busiest device over the mean
    balanced: whether a token's experts lie on as many devices as they can, as in TensorRT-LLM's measurements
    stated: factor on the microseconds that reference rows of this op state
    """

    family: ClassVar[str] = "expert_exchange"

    tokens: Num
    hidden: Num
    topk: Num
    experts: Num
    ep: Num = 0.0
    nodes: Num = 1.0
    backend: str = "normal"
    phase: str = "both"
    dtype: str = "unstated"
    cores: Num = 0.0
    busiest: Num = 1.0
    balanced: bool = False
    stated: float = 1.0


def row_bytes(shape: ExchangeShape) -> Num:
    """Bytes of a row in all its phases; lists have a few numbers per expert."""
    there = ROW_BYTES["fp8" if shape.phase == "both" and shape.dtype == "unstated" else shape.dtype]
    back = ROW_BYTES["fp4"] if shape.dtype == "fp4" else ROW_BYTES["bfloat16"]
    if shape.phase == "prepare":
        return 8.0 * shape.topk
    return shape.hidden * {"dispatch": there, "combine": back, "both": there + back}[shape.phase]


def copies(shape: ExchangeShape) -> Num:
    """Number of copies of each token: one per expert, or one per device that holds any of its experts."""
    if shape.phase == "prepare":
        return 1.0
    if shape.backend == "low_latency":
        return shape.topk * shape.busiest
    reached = np.minimum(shape.topk, shape.ep) if shape.balanced else devices_reached(shape.topk, shape.ep)
    return np.minimum(reached * shape.busiest, shape.ep)


def devices_reached(topk: Num, devices: Num) -> Num:
    """Expected number of distinct devices among `topk` experts that lie anywhere: n (1 - (1 - 1/n)^k)."""
    return devices * (1.0 - np.power(1.0 - 1.0 / devices, topk))


def cores(hardware: Hardware, shape: ExchangeShape) -> Num:
    """Number of cores that copy rows: all, except for normal kernels, which use a few while the others compute."""
    if shape.backend != "normal":
        return hardware.cores
    return np.where(np.greater(shape.cores, 0.0), shape.cores, NORMAL_CORES)


def check(shape: ExchangeShape) -> None:
    """Raise ConfigError for unknown kernels, phases and dtypes."""
    for name, value, known in (
        ("backend", shape.backend, LIKE), ("phase", shape.phase, PHASES), ("dtype", shape.dtype, ROW_BYTES),
    ):  # fmt: skip
        if value not in known:
            raise ConfigError(f"{name} '{value}' of an expert exchange is not known; {choices_text(value, known)}")


def resolved(hardware: Hardware, shape: ExchangeShape) -> ExchangeShape:
    """With the number of devices filled in, if rows state only hosts."""
    require_link(hardware)
    held = hardware.links[0].devices
    host = HOST_DEVICES if held > 2.0 * HOST_DEVICES else held
    return replace(shape, ep=np.where(np.greater(shape.ep, 0.0), shape.ep, shape.nodes * host))


def copies_beyond(shape: ExchangeShape, nodes: Num) -> Num:
    """Copies of a token that leave the node: for each expert elsewhere, or one for each other node with some."""
    there = shape.topk if shape.backend == "low_latency" else devices_reached(shape.topk, nodes)
    return there * shape.busiest * (1.0 - 1.0 / nodes)


def floor_s(hardware: Hardware, shape: ExchangeShape) -> Num:
    """Time of the bytes that a device sends within its node, at the datasheet's bandwidth, without lists of experts."""
    if shape.phase == "prepare":
        return 0.0 * shape.tokens
    node, _ = node_and_beyond(hardware, shape.ep)
    sent = shape.tokens * row_bytes(shape) * copies(shape)
    return sent * np.maximum(node.count - 1.0, 0.0) / shape.ep / node.bytes_per_s


def roofline_s(hardware: Hardware, shape: ExchangeShape) -> Num:
    """Time of the bytes that a device sends at the datasheet's bandwidth, within its node or over its NIC, whichever
    is longer.

    Raises ConfigError for unknown kernels, phases and dtypes, HardwareError if the device states no link.
    """
    check(shape)
    whole = resolved(hardware, shape)
    safe = replace(whole, ep=np.maximum(whole.ep, 2.0))
    time = floor_s(hardware, safe)
    _, beyond = node_and_beyond(hardware, safe.ep)
    for leg in beyond:
        time = np.maximum(time, safe.tokens * row_bytes(safe) * copies_beyond(safe, leg.count) / leg.bytes_per_s)
    return shape.stated * time
