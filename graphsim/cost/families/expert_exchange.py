"""Exchanges of tokens with the devices of their experts by specialised kernels instead of all-to-all collectives.

    t = exp(surface) · ( start · (devices / 2)^growth + depth · width + token · tokens
                         + overlapped(copy · bytes moved / cores, wire · bytes sent / link) )

* low_latency: a copy for each expert of a token, straight to its device, by all cores (DeepEP for decode)
* normal: a copy for each device that holds some of a token's experts, by a few reserved cores (DeepEP for prompts)
* elastic_prefill, elastic_decode: the same of DeepEP's second version
* two_sided, one_sided: over NVLink, a copy for each device, after a kernel that makes lists (TensorRT-LLM)

That is one node. Between nodes every device has its own NIC: low-latency traffic over it is added, as the kernel sends
first and then waits; normal kernels forward chunk by chunk, so that NIC and node overlap. The fit of eight H100
reproduces the low-latency figures of DeepEP's authors for 16 to 256 H800 within 15 % (github.com/deepseek-ai/DeepEP,
docs/legacy.md, "Performance").
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from graphsim.cost.families.blend import KernelFit, entry_of, fitted_s
from graphsim.cost.families.collectives import NIC_SHARE
from graphsim.cost.families.exchange_work import (
    LIKE,
    PHASES,
    ROW_BYTES,
    ExchangeShape,
    check,
    copies,
    copies_beyond,
    cores,
    floor_s,
    resolved,
    roofline_s,
    row_bytes,
)
from graphsim.cost.families.overlap import loosely_overlapped
from graphsim.cost.interconnect import node_and_beyond
from graphsim.cost.surfaces.fitting import Order, SurfaceSpec
from graphsim.cost.surfaces.kernel_fit import fit_kernel
from graphsim.cost.surfaces.tables import Array
from graphsim.errors import ConfigError, choices_text
from graphsim.hardware import Hardware
from graphsim.units import Num

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["LIKE", "PHASES", "ROW_BYTES", "ExchangeShape", "copies", "fit", "latency_s", "roofline_s", "shape_of"]

BACKENDS = {
    "deepep_ll": "low_latency", "trtllm_deepep_ll": "low_latency", "wideep_deepep_ll": "low_latency",
    "deepep_ht": "normal", "trtllm_deepep_ht": "normal", "wideep_deepep_normal": "normal",
    "deepep_v2_context": "elastic_prefill", "deepep_v2_generation": "elastic_decode",
    "NVLinkTwoSided": "two_sided", "NVLinkOneSided": "one_sided",
}  # fmt: skip
"""The kernels of each measured `comm_backend`, `op` or `kernel`."""

GROUPS = ("op", "kernel", "comm_backend", "phase", "dtype", "distribution")
"""Columns with a single value per shape."""

STATED_IN_NS = ("moe_a2a:moe_a2a",)
"""Ops whose rows state nanoseconds where their column says microseconds: a combine of 7168 x 8 numbers for one token on
eight H100 would take 28 ms, and 28 us by the same library under another op."""

START = {
    "start_s": 2e-5, "growth": 0.1, "depth_clocks": 0.5, "token_clocks": 2.0, "copy_clocks": 0.05, "wire": 1.5,
}  # fmt: skip
"""Constants before any fit; see `_skeleton` for their meanings."""


def _skeleton(c: Mapping[str, float], hardware: Hardware, shape: ExchangeShape) -> Num:
    """Time before the surface, in one node.

    start_s, growth: of an empty exchange between two devices, and the power of the devices with which it grows
    depth_clocks: for each number of a row; token_clocks: for each token, of the routing lists, which one core computes
    copy_clocks: of one core for each byte that it copies; wire: times the datasheet's time of what is sent
    """
    pairs = shape.ep / 2.0
    start_s = c["start_s"] * np.power(pairs, c["growth"]) + c["depth_clocks"] * shape.hidden / hardware.clock_hz
    lists_s = c["token_clocks"] * shape.tokens / hardware.clock_hz
    moved = row_bytes(shape) * shape.tokens * copies(shape)
    copying_s = c["copy_clocks"] * moved / (cores(hardware, shape) * hardware.clock_hz)
    node, _ = node_and_beyond(hardware, shape.ep)
    wire_s = c["wire"] * moved * (1.0 - 1.0 / shape.ep) / node.bytes_per_s
    return start_s + lists_s + loosely_overlapped(copying_s, wire_s)


def _coordinates(hardware: Hardware, shape: ExchangeShape) -> dict[str, Num]:
    """log2 of physical sizes."""
    return {
        "tokens": np.log2(shape.tokens),
        "message": np.log2(row_bytes(shape) * shape.tokens * copies(shape)),
        "cores": np.log2(cores(hardware, shape)),
        "devices": np.log2(shape.ep),
        "copies": np.log2(copies(shape)),
    }


LAYOUT = SurfaceSpec(
    knots={
        "tokens": [float(x) for x in range(18)], "message": [*range(6, 36, 2)], "cores": [2, 3, 3.6, 4, 4.4, 5, 7],
        "devices": [1, 2, 3, 4, 5, 6], "copies": [0, 1, 2, 3, 4, 5],
    },
    terms=[("tokens", "devices"), ("message", "cores"), ("copies",)],
    flat=0.05,
)  # fmt: skip
"""The coordinates of each correction table, and their knots."""


LEVELS = (LIKE, PHASES, ROW_BYTES)
SURFACES = (LAYOUT,)


def needed(backend: str, phase: str, dtype: str) -> Collection[str]:
    """Names of the constants of a fit."""
    return START


def latency_s(parameters: Mapping[str, Any], hardware: Hardware, shape: ExchangeShape) -> Num:
    """Seconds of one exchange, from fitted `parameters` (of `fit`); no tokens or one device, no time.

    Of a reference row that states nanoseconds, as many seconds as its microseconds would be (`ExchangeShape.stated`).
    Raises ConfigError for unknown kernels, phases and dtypes, HardwareError if the device states no link.
    """
    check(shape)
    if not hardware.links and not np.any(np.greater(shape.ep, 1)):
        return 0.0
    whole = resolved(hardware, shape)
    safe = replace(
        whole, tokens=np.maximum(whole.tokens, 1.0), ep=np.maximum(whole.ep, 2.0),
        busiest=np.maximum(whole.busiest, 1.0),
    )  # fmt: skip
    time = _nodes_s(parameters, hardware, safe)
    something = np.greater(whole.tokens * whole.hidden, 0) & np.greater(whole.ep, 1)
    return np.where(something, shape.stated * np.maximum(time, floor_s(hardware, safe)), 0.0)


def _nodes_s(parameters: Mapping[str, Any], hardware: Hardware, shape: ExchangeShape) -> Num:
    """Seconds among any number of nodes; of one node, those that were measured.

    Of copies sent directly to their devices, a node's share stays within it; forwarded ones all end on links of a node.
    """
    node, beyond = node_and_beyond(hardware, shape.ep)
    inside = replace(shape, ep=node.count)
    share = node.count / shape.ep if shape.backend == "low_latency" else copies(shape) / copies(inside)
    inside = replace(inside, tokens=np.maximum(shape.tokens * share, 1.0))
    time = _fitted_s(parameters, hardware, inside)
    for leg in beyond:
        sent = shape.tokens * row_bytes(shape) * copies_beyond(shape, leg.count)
        nic_s = sent / (leg.bytes_per_s * NIC_SHARE) + leg.link.latency_s * np.minimum(leg.count - 1.0, 1.0)
        if shape.backend == "low_latency":
            time = time + nic_s
        else:
            empty = _fitted_s(parameters, hardware, replace(inside, tokens=1.0))
            time = np.maximum(time, np.where(np.greater(leg.count, 1.0), empty + nic_s, 0.0))
    return time


def _fitted_s(parameters: Mapping[str, Any], hardware: Hardware, shape: ExchangeShape) -> Num:
    """Seconds within one node by the fit of the kernels, else of the most similar ones.

    If both directions were measured together, each has the share of its bytes. The engine's own fits come first in the
    parameters, and may be followed by others'.
    """
    backend = _measured_backend(parameters, shape.backend)
    phases = parameters.get(backend, {"both": {}})
    served, together = replace(shape, backend=backend), next(iter(phases), "both") == "both"
    if shape.phase == "both" and not together:
        apart = (replace(served, phase=phase) for phase in phases if phase != "both")
        return sum((_priced_s(parameters, hardware, one) for one in apart), start=0.0)
    if shape.phase == "both" or (shape.phase in phases and not together):
        return _priced_s(parameters, hardware, served)
    if shape.phase == "prepare":
        return 0.0
    both = replace(served, phase="both", dtype=shape.dtype if shape.phase == "dispatch" else "unstated")
    return row_bytes(shape) / row_bytes(both) * _priced_s(parameters, hardware, both)


def _measured_backend(parameters: Mapping[str, Any], backend: str) -> str:
    """The backend, else the most similar measured one."""
    tried: list[str] = []
    name = backend
    while name not in tried:
        if name in parameters:
            return name
        tried.append(name)
        name = LIKE[name]
    return next(iter(parameters), backend)


def _priced_s(parameters: Mapping[str, Any], hardware: Hardware, shape: ExchangeShape) -> Num:
    known = parameters.get(shape.backend, {}).get(shape.phase, {})
    dtype = shape.dtype if shape.dtype in known else next(iter(known), "unstated")
    key = (shape.backend, shape.phase, dtype)
    entry = entry_of(parameters, key, lambda one: _entry(one, *key))
    return fitted_s(entry, lambda c: _skeleton(c, hardware, shape), lambda: _coordinates(hardware, shape))


def _entry(parameters: Mapping[str, Any], backend: str, phase: str, dtype: str) -> KernelFit:
    known: Mapping[str, KernelFit] = parameters.get(backend, {}).get(phase, {})
    return known.get(dtype) or next(iter(known.values()), {"constants": START})


def shape_of(frame: pd.DataFrame) -> ExchangeShape:
    """The shape of reference rows of one op, kernel, backend, phase and dtype.

    Raises ConfigError for kernels, phases and dtypes that are not known.
    """
    op, kernel, backend, phase, dtype = (
        _text(frame, name) for name in ("op", "kernel", "comm_backend", "phase", "dtype")
    )
    known = next((BACKENDS[name] for name in (backend, op, kernel) if name in BACKENDS), None)
    if known is None:
        raise ConfigError(f"comm_backend '{backend}' of op '{op}' is not known; {choices_text(backend, BACKENDS)}")
    if op.startswith("trtllm_alltoall"):
        phase = op.rpartition("_")[2]
    numbers = {name: frame[name].to_numpy(dtype=float) for name in ("tokens", "hidden", "topk", "experts")}
    shape = ExchangeShape(
        **numbers, ep=_numbers(frame, ("ep",), 0.0), nodes=_numbers(frame, ("nodes",), 1.0),
        cores=_numbers(frame, ("dispatch_sms", "sms"), 0.0), backend=known, phase=phase or "both",
        dtype="unstated" if dtype in ("", "default") else dtype,
        balanced=_text(frame, "distribution") == "balanced", stated=1e3 if op in STATED_IN_NS else 1.0,
    )  # fmt: skip
    check(shape)
    return shape


def _text(frame: pd.DataFrame, column: str) -> str:
    """The text of a column, the same in all rows; "" if it is absent or empty."""
    value = frame[column].iloc[0] if column in frame.columns else ""
    return value if isinstance(value, str) else ""


def _numbers(frame: pd.DataFrame, columns: tuple[str, ...], otherwise: float) -> Array:
    """The first non-empty one of these columns in each row."""
    found = np.full(len(frame), np.nan)
    for name in columns:
        if name in frame.columns:
            found = np.where(np.isnan(found), frame[name].to_numpy(dtype=float), found)
    return np.where(np.isnan(found), otherwise, found)


def fit(frame: pd.DataFrame, hardware: Hardware) -> dict[str, Any]:
    """Constants and surface per backend, phase and dtype from reference rows."""
    columns = [name for name in GROUPS if name in frame.columns]
    found: dict[str, Any] = {}
    for _, rows in frame.groupby(columns, sort=True, dropna=False):
        shape = resolved(hardware, shape_of(rows))
        entry = _fit_one(shape, rows["latency_us"].to_numpy(dtype=float) * (1e-6 / shape.stated), hardware)
        found.setdefault(shape.backend, {}).setdefault(shape.phase, {})[shape.dtype] = entry
    return found


def _fit_one(shape: ExchangeShape, measured_s: Array, hardware: Hardware) -> dict[str, Any]:
    return fit_kernel(
        lambda c: _skeleton(c, hardware, shape), _coordinates(hardware, shape), measured_s, start=START, layout=LAYOUT,
        order=lambda c: _order(c, hardware, shape), hold=1e-3, rounds=60,
    )  # fmt: skip


def _arrays(hardware: Hardware, shape: ExchangeShape) -> dict[str, Array]:
    size = np.shape(shape.tokens)
    return {
        key: np.broadcast_to(np.asarray(value, dtype=float), size)
        for key, value in _coordinates(hardware, shape).items()
    }


def _order(constants: Mapping[str, float], hardware: Hardware, shape: ExchangeShape) -> Order:
    """Pairs of exchanges like the measured ones, the second of more tokens, wider rows or more experts for each."""
    random, count, most = np.random.default_rng(0), 6_000, np.log2(np.max(shape.tokens))
    bits = random.uniform((0.0, 10.0, 0.0), (most, 14.0, 4.0), (count, 3))
    more = np.where(np.arange(3) == random.integers(0, 3, (count, 1)), random.uniform(0.3, 2.0, (count, 1)), 0.0)
    devices, cores = (random.choice(np.unique(values), count) for values in (shape.ep, shape.cores))
    low, high = (
        replace(shape, tokens=tokens, hidden=hidden, topk=topk, ep=devices, cores=cores)
        for tokens, hidden, topk in (np.ceil(2.0**x).T for x in (bits, bits + more))
    )
    growth = np.log(_skeleton(constants, hardware, high) / _skeleton(constants, hardware, low))
    return Order(low=_arrays(hardware, low), high=_arrays(hardware, high), least=-growth, weight=10.0)
