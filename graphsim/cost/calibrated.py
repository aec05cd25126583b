"""Pricing graph operations from fitted constants: the device's own, or its generation's scaled by datasheet.

Products, adapters included, go to the GEMM family, attention and collectives to theirs (`cost/blocks.py`),
byte-moving operations to the element-wise one. What no family has measured keeps its roofline, stretched by
what the device's products fall short of it:

    t = launch + max(compute · flops / peak, dram · bytes / bandwidth, message / link)

Launches are those of kernels inside a captured graph, as the measurements were taken.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

from graphsim.cost.base import Cost, CostModel
from graphsim.cost.blocks import KINDS, WITHIN_EXPERTS, attention_s, collective_s, expert_s
from graphsim.cost.families import attention, collectives, elementwise, gemm, moe
from graphsim.cost.families.attention_work import AttentionShape
from graphsim.cost.families.collectives import CollectiveShape
from graphsim.cost.families.elementwise import ElementwiseShape
from graphsim.cost.families.gemm import GemmShape
from graphsim.cost.families.moe import MoeShape
from graphsim.cost.parameters.store import basis
from graphsim.cost.products import constants, product_of, product_s
from graphsim.cost.roofline import compute_s, launches_of, matrix_peak, roofline
from graphsim.hardware import Hardware
from graphsim.ops import (
    Activation,
    Add,
    Attention,
    Collective,
    Elementwise,
    Embedding,
    Gemm,
    KvCache,
    LoraAdd,
    Norm,
    Op,
    Rope,
    Sample,
    TakeRows,
)
from graphsim.ops.experts import ExpertGemm
from graphsim.symbolic.expr import Expr
from graphsim.units import Num

FAMILIES: dict[type[Any], tuple[str, Callable[..., Num]]] = {
    GemmShape: ("gemm", gemm.latency_s),
    ElementwiseShape: ("elementwise", elementwise.latency_s),
    AttentionShape: ("attention", attention.latency_s),
    MoeShape: ("moe", moe.latency_s),
    CollectiveShape: ("collectives", collectives.latency_s),
}
"""What prices the kernels of each shape: the family's name, and its latency."""

KernelTime = Callable[[Any], Num]
"""Seconds of a measured kernel from its shape, one of those in FAMILIES."""

BYTE_MOVERS = (Elementwise, Activation, Add, Norm, Rope, TakeRows, Sample, Embedding, KvCache, LoraAdd)


def calibrated(hardware: Hardware) -> tuple[CostModel, str]:
    """A cost model for one device and what it rests on: `calibrated`, `scaled from …`, or `roofline`.

    What it has priced before in the same sizes is remembered: prefill, decode and every layer share it.
    """
    found = {family: basis(hardware, family) for family, _ in FAMILIES.values()}
    if found["gemm"].parameters is None:
        return roofline, "roofline"
    parameters: dict[str, Mapping[str, Any]] = {name: entry.parameters or {} for name, entry in found.items()}
    return Prices(hardware, parameters), found["gemm"].origin


class Prices:
    """The calibrated cost model of one device; it remembers what it has priced before in the same sizes."""

    def __init__(self, hardware: Hardware, parameters: Mapping[str, Mapping[str, Any]]) -> None:
        self._hardware, self._parameters = hardware, parameters
        self._known: dict[tuple[Any, ...], Cost] = {}

    def __call__(self, op: Op, device: Hardware) -> Cost:
        """The price of an operation on the device that the constants are for, or on one like it."""
        sizes = _sizes(op)
        values = sum([size.size for size in sizes if isinstance(size, np.ndarray)])
        symbols = any(isinstance(size, Expr) for size in sizes)
        if symbols or not sizes or device is not self._hardware or values > _REMEMBERED:
            return _price(op, device, self._parameters)
        key = (type(op).__name__, *map(_content, sizes))
        found = self._known.get(key)
        if found is None:
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            found = self._known[key] = _price(op, device, self._parameters)
        return found

    def __reduce__(self) -> tuple[Any, ...]:
        return Prices, (self._hardware, self._parameters)

    def latency_s(self, op: Op, kernel_s: KernelTime) -> Num:
        """Seconds of an operation whose numbers may be symbols, from a function that gives those of its kernels."""
        return _latency_s(op, self._hardware, self._parameters, kernel_s)

    def kernel_s(self, shape: Any) -> Num:
        """Seconds of one kernel."""
        return _kernel_s(self._hardware, self._parameters, shape)


_REMEMBERED, _MOST_KNOWN = 4096, 20_000
"""Values in the sizes of an operation, and operations, that are worth remembering."""


def _sizes(op: Op) -> tuple[Any, ...]:
    """All that the price of an operation of its type hangs on, where it is worth remembering."""
    if isinstance(op, ExpertGemm):
        experts = (op.tokens, op.experts, op.of, op.chosen, op.skew, op.split.name, op.gated)
        return op.m, op.n, op.k, op.weights.name, *experts
    if isinstance(op, Gemm):
        further = [getattr(op, name, 1.0) for name in ("adapters", "blocks", "heads")]
        return op.m, op.n, op.k, *further, launches_of(op), op.weights.name
    if isinstance(op, Attention):
        sizes = (op.sequences, op.query_tokens, op.kv_tokens, op.pairs, op.heads, op.kv_heads, op.head_dim)
        return (*sizes, op.value_dim, op.window, op.cache_width, op.kv.name, op.activations.name, op.decode)
    if isinstance(op, Collective):
        return op.elems, op.group, op.activations.name
    return ()


def _content(size: Any) -> Any:
    """What makes two sizes equal: the values of an array, the number itself."""
    return (size.shape, size.tobytes()) if isinstance(size, np.ndarray) else size


def _price(op: Op, hardware: Hardware, parameters: Mapping[str, Mapping[str, Any]]) -> Cost:
    """The same parts as the roofline's, another total."""
    base, total = roofline(op, hardware), _latency_s(op, hardware, parameters, partial(_kernel_s, hardware, parameters))
    if _within_measured_block(op, parameters):
        return Cost(busy_s=total)
    starts = np.where(base.launch_s > 0, _launch_s(parameters, hardware), 0.0)[()] * launches_of(op)
    launch_s = np.minimum(starts, total)
    return Cost(
        busy_s=total - launch_s,
        compute_s=base.compute_s,
        memory_s=base.memory_s,
        network_s=base.network_s,
        launch_s=launch_s,
    )


def _kernel_s(hardware: Hardware, parameters: Mapping[str, Mapping[str, Any]], shape: Any) -> Num:
    family, latency_s = FAMILIES[type(shape)]
    seconds: Num = latency_s(parameters[family], hardware, shape)
    return seconds if isinstance(seconds, Expr) else np.asarray(seconds)[()]


def _latency_s(op: Op, hardware: Hardware, parameters: Mapping[str, Mapping[str, Any]], kernel_s: KernelTime) -> Num:
    """Seconds of an operation, its launches included."""
    if isinstance(op, ExpertGemm) and parameters["moe"]:  # routing, gathering and combining run in the same kernels
        return expert_s(op, kernel_s)
    if _within_measured_block(op, parameters):
        return 0.0 * roofline(op, hardware).busy_s
    if isinstance(op, Gemm) and not isinstance(op, ExpertGemm):
        matrix_peak(op, hardware)  # raises where the device lacks the format
        return product_s(parameters["gemm"], hardware, product_of(op), kernel_s)
    if isinstance(op, Attention) and parameters["attention"]:
        return np.maximum(attention_s(op, kernel_s), compute_s(op, op.work(), hardware))
    if type(op) in KINDS and parameters["collectives"]:
        return collective_s(op, parameters["collectives"], kernel_s)  # type: ignore[arg-type]
    if isinstance(op, BYTE_MOVERS):
        return _mover_s(op, hardware, parameters, kernel_s)
    return _stretched_s(op, hardware, parameters)


def _within_measured_block(op: Op, parameters: Mapping[str, Mapping[str, Any]]) -> bool:
    return isinstance(op, WITHIN_EXPERTS) and bool(parameters["moe"])


def _launch_s(parameters: Mapping[str, Mapping[str, Any]], hardware: Hardware) -> Num:
    return constants(parameters["gemm"])["launch_clocks"] / hardware.clock_hz


def _mover_s(op: Op, hardware: Hardware, parameters: Mapping[str, Mapping[str, Any]], kernel_s: KernelTime) -> Num:
    work = op.work()
    moved = work.memory_bytes
    others = (launches_of(op) - 1.0) * _launch_s(parameters, hardware) * np.greater(moved, 0.0)
    return np.maximum(kernel_s(ElementwiseShape(moved_bytes=moved)), compute_s(op, work, hardware)) + others


def _stretched_s(op: Op, hardware: Hardware, parameters: Mapping[str, Mapping[str, Any]]) -> Num:
    base, c = roofline(op, hardware), constants(parameters["gemm"])
    busy = np.maximum(c["compute"] * base.compute_s, np.maximum(c["dram"] * base.memory_s, base.network_s))
    busy = np.maximum(busy, base.busy_s)
    return busy + np.where(base.launch_s > 0, _launch_s(parameters, hardware), 0.0)[()] * launches_of(op)
