"""Pricing graph operations from fitted constants: the device's own, or its generation's scaled by datasheet.

An operation says which cost family prices it (`Op.family`): GEMMs, adapters included, go to the GEMM family,
attention, collectives, experts, and convolutions and scans along sequences to theirs (`cost/products.py`,
`cost/blocks.py`, `cost/recurrences.py`), memory-bound operations to the element-wise one. Operations that no family
measured use the roofline, scaled by the device's GEMM efficiency:

    t = launch + max(compute · flops / peak, dram · bytes / bandwidth, message / link)

The launch time of a kernel has three sources, each for the kernels measured with it:

* `launch_clocks`, fitted with the device's 16-bit GEMMs (`families/gemm.py`), or with its memory-bound kernels
  (`families/elementwise.py`): inside a captured graph. That of the GEMMs (`_launch_s`) also applies to operations that
  were not measured, and to each further kernel of an operation; it is the `launch_s` of all prices here.
* `launch_s` or `start_s`, fitted with attention, experts and collectives, is a part of their kernels' time and
  seconds on every device (`families/attention.py`, `moe.py`, `collectives.py`).
* `Hardware.launch_s` and `.eager_launch_s`, of the device's file: the bare roofline's (`cost/roofline.py`), and the
  host's start of each kernel where no graph is captured (`ops.Launch`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from graphsim.cost.base import Cost
from graphsim.cost.blocks import (
    attention_s,
    collective_s,
    encoder_s,
    exchange_s,
    expert_s,
    hyper_connection_s,
    kinds_of,
    latent_shape,
    sparse_s,
)
from graphsim.cost.families import mla
from graphsim.cost.families.elementwise import ElementwiseShape
from graphsim.cost.families.registry import FAMILIES
from graphsim.cost.products import batched_shape, constants, product_of, product_s
from graphsim.cost.recurrences import recurrent_s
from graphsim.cost.roofline import compute_s, matrix_peak, roofline, uncaptured_s
from graphsim.errors import GraphError, choices_text
from graphsim.hardware import Hardware
from graphsim.ops import (
    AllReduceNorm,
    Attention,
    CausalConv,
    Collective,
    ExchangeTokens,
    ExpertActivation,
    ExpertGemm,
    Gemm,
    HeadGemm,
    IndexScores,
    MlaAttention,
    Op,
    Permute,
    Residency,
    Route,
    Scan,
    SparseAttention,
)
from graphsim.symbolic.expr import Expr
from graphsim.units import Num

Parameters = Mapping[str, Mapping[str, Any]]
"""Fitted parameters by family; empty where there are none."""

KernelTime = Callable[[Any], Num]
"""Seconds of a measured kernel from its shape, whose `family` prices it."""

TINY_S = 1e-30
"""A time below any other, as the divisor instead of a time that may be 0."""

_LATENCY: dict[str, Callable[..., Num]] = {name: family.module.latency_s for name, family in FAMILIES.items()}


def price_of(op: Op, hardware: Hardware, parameters: Parameters, kernel_s: KernelTime) -> Cost:
    """The price of an operation: the same parts as the roofline's, another total.

    kernel_s: returns the seconds of its kernels; numbers may be symbols
    """
    base, total = roofline(op, hardware), latency_seconds(op, hardware, parameters, kernel_s)
    if _within_measured_block(op, parameters):
        return Cost(busy_s=total)
    starts = _starts_s(op, base, parameters, hardware)
    launch_s = np.minimum(starts, total)
    return Cost(
        busy_s=total - launch_s,
        compute_s=base.compute_s,
        memory_s=base.memory_s,
        network_s=base.network_s,
        launch_s=launch_s,
    )


def kernel_seconds(hardware: Hardware, parameters: Parameters, shape: Any) -> Num:
    """Seconds of one kernel of the family that its shape names."""
    seconds = _LATENCY[shape.family](parameters[shape.family], hardware, shape)
    return seconds if isinstance(seconds, Expr) else np.asarray(seconds)[()]


def latency_seconds(op: Op, hardware: Hardware, parameters: Parameters, kernel_s: KernelTime) -> Num:
    """Seconds by the family that the operation names, else by the stretched roofline.

    Kernels were measured with their operands in memory: for operands on the chip, the kernel's time is reduced in
    proportion to the scaled roofline; an assumption, since it was not measured. Raises GraphError for an operation
    that names no family of FAMILIES.
    """
    if op.residency is not Residency.All_offchip:
        off_chip = replace(op, residency=Residency.All_offchip)
        share = _stretched_s(op, hardware, parameters) / np.maximum(
            _stretched_s(off_chip, hardware, parameters), TINY_S
        )
        return share * latency_seconds(off_chip, hardware, parameters, kernel_s)
    if not op.family:
        return _stretched_s(op, hardware, parameters)
    if op.family not in FAMILIES:
        kind = type(op).__name__
        raise GraphError(f"{kind}.family = '{op.family}' is not known; {choices_text(op.family, FAMILIES)} or ''")
    measured_s = _MEASURED[op.family](op, hardware, parameters, kernel_s)
    return _stretched_s(op, hardware, parameters) if measured_s is None else measured_s


def _product_s(op: Op, hardware: Hardware, parameters: Parameters, kernel_s: KernelTime) -> Num | None:
    if not isinstance(op, Gemm) or not op.weights.gemm:
        return None
    matrix_peak(op, hardware)  # raises if the device lacks the format
    return product_s(parameters["gemm"], hardware, product_of(op), kernel_s)


def _batched_s(op: Op, hardware: Hardware, parameters: Parameters, kernel_s: KernelTime) -> Num | None:
    """As one GEMM over the outputs of all heads if no batched one was measured.

    Its weights come from memory in every layer, those of the measured calls from the cache.
    """
    if not isinstance(op, HeadGemm) or not op.weights.gemm or not parameters.get("batched_gemm"):
        return _product_s(op, hardware, parameters, kernel_s)
    return np.maximum(kernel_s(batched_shape(op)), roofline(op, hardware).busy_s)


def _latent_s(op: Op, hardware: Hardware, parameters: Parameters, kernel_s: KernelTime) -> Num | None:
    """As attention with the same work if no similar latent kernel was measured."""
    fitted = parameters.get("mla")
    if not isinstance(op, MlaAttention) or not op.kv.attention or not fitted:
        return _attention_s(op, hardware, parameters, kernel_s)
    shape = latent_shape(op)
    if mla.measured_absorbed(fitted, shape):
        return _attention_s(op, hardware, parameters, kernel_s)
    return np.where(np.greater(op.pairs * op.heads, 0), kernel_s(shape), 0.0)


def _attention_s(op: Op, hardware: Hardware, parameters: Parameters, kernel_s: KernelTime) -> Num | None:
    if not isinstance(op, Attention) or not op.kv.attention or not parameters["attention"]:
        return None
    if not op.causal and not op.decode and parameters["encoder_attention"]:
        return np.maximum(encoder_s(op, kernel_s), compute_s(op, op.work(), hardware))
    return np.maximum(attention_s(op, kernel_s), compute_s(op, op.work(), hardware))


def _expert_s(op: Op, hardware: Hardware, parameters: Parameters, kernel_s: KernelTime) -> Num | None:
    if _within_measured_block(op, parameters):
        return 0.0 * roofline(op, hardware).busy_s
    if not isinstance(op, ExpertGemm) or not op.weights.moe or not parameters["moe"]:
        return None
    return expert_s(op, kernel_s)


def _within_measured_block(op: Op, parameters: Parameters) -> bool:
    """Whether the time of an operation is included in that of the experts' GEMMs, as their kernels were measured."""
    return op.family == "moe" and isinstance(op, _BESIDE_EXPERTS) and bool(parameters["moe"])


def _collective_s(op: Op, hardware: Hardware, parameters: Parameters, kernel_s: KernelTime) -> Num | None:
    if not isinstance(op, Collective) or not kinds_of(op) or not parameters["collectives"]:
        return None
    seconds = collective_s(op, parameters["collectives"], hardware, kernel_s)
    return seconds + _norm_behind_s(op, hardware, kernel_s) if isinstance(op, AllReduceNorm) else seconds


def _norm_behind_s(op: AllReduceNorm, hardware: Hardware, kernel_s: KernelTime) -> Num:
    """Time that a residual and its norm add to an all-reduce: their bytes within its kernel, or a kernel after it."""
    within_s = op.work().memory_bytes / hardware.memory_bytes_per_s
    behind_s = kernel_s(ElementwiseShape(moved_bytes=op.behind.work().memory_bytes))
    return op.apart * behind_s + (1.0 - op.apart) * within_s


def _exchange_s(op: Op, hardware: Hardware, parameters: Parameters, kernel_s: KernelTime) -> Num | None:
    if not isinstance(op, ExchangeTokens) or not op.kernels or not parameters["expert_exchange"] or not hardware.links:
        return None
    return exchange_s(op, kernel_s)


def _streams_s(op: Op, hardware: Hardware, parameters: Parameters, kernel_s: KernelTime) -> Num | None:
    if not parameters["hyper_connections"]:
        return None
    measured_s = hyper_connection_s(op, kernel_s)
    return None if measured_s is None else np.maximum(measured_s, compute_s(op, op.work(), hardware))


def _sparse_s(op: Op, hardware: Hardware, parameters: Parameters, kernel_s: KernelTime) -> Num | None:
    """As attention over the same number of pairs if such kernels were not measured."""
    if not isinstance(op, IndexScores | SparseAttention) or not parameters.get("sparse"):
        return _attention_s(op, hardware, parameters, kernel_s)
    return sparse_s(op, kernel_s)


def _mover_s(op: Op, hardware: Hardware, parameters: Parameters, kernel_s: KernelTime) -> Num | None:
    work = op.work()
    moved = work.memory_bytes
    others = (op.launches - 1.0) * _launch_s(parameters, hardware) * np.greater(moved, 0.0)
    return np.maximum(kernel_s(ElementwiseShape(moved_bytes=moved)), compute_s(op, work, hardware)) + others


def _recurrent_s(op: Op, hardware: Hardware, parameters: Parameters, kernel_s: KernelTime) -> Num | None:
    if not isinstance(op, CausalConv | Scan) or not op.mechanism or not parameters["recurrent"]:
        return None
    return np.maximum(recurrent_s(op, kernel_s), compute_s(op, op.work(), hardware))


_MEASURED: dict[str, Callable[[Op, Hardware, Parameters, KernelTime], Num | None]] = {
    "attention": _attention_s, "batched_gemm": _batched_s, "collectives": _collective_s, "elementwise": _mover_s,
    "expert_exchange": _exchange_s, "gemm": _product_s, "hyper_connections": _streams_s, "mla": _latent_s,
    "moe": _expert_s, "recurrent": _recurrent_s, "sparse": _sparse_s,
}  # fmt: skip
"""How each family prices an operation from its kernels; None if no similar kernel was measured."""


_BESIDE_EXPERTS = (Route, Permute, ExpertActivation)
"""Operations included in the measured kernels of experts in addition to the GEMMs; all others of the family have their
roofline.

"""


def _launch_s(parameters: Parameters, hardware: Hardware) -> Num:
    """Start of a kernel inside a captured graph, as fitted with the 16-bit GEMMs: one of three, see the module."""
    return constants(parameters["gemm"])["launch_clocks"] / hardware.clock_hz


def _stretched_s(op: Op, hardware: Hardware, parameters: Parameters) -> Num:
    base, c = roofline(op, hardware), constants(parameters["gemm"])
    busy = np.maximum(c["compute"] * base.compute_s, np.maximum(c["dram"] * base.memory_s, base.network_s))
    busy = np.maximum(busy, base.busy_s)
    return busy + _starts_s(op, base, parameters, hardware)


def _starts_s(op: Op, base: Cost, parameters: Parameters, hardware: Hardware) -> Num:
    """Launch times of all kernels of an operation, if it has any work."""
    each = _launch_s(parameters, hardware)
    return np.where(base.launch_s > 0, each * op.launches + uncaptured_s(op), 0.0)[()]
