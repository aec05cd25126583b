"""Pricing graph operations from fitted constants: the device's own, or its generation's scaled by datasheet.

An operation says which cost family prices it (`Op.family`): GEMMs, adapters included, go to the GEMM family,
attention, collectives, experts, and convolutions and scans along sequences to theirs, memory-bound operations to the
element-wise one (`cost/blocks`). Operations that no family measured use the roofline, scaled by the device's GEMM
efficiency:

    t = launch + max(compute · flops / peak, dram · bytes / bandwidth, message / link)

The launch time of a kernel has three sources, each for the kernels measured with it:

* `launch_clocks`, fitted with the device's 16-bit GEMMs (`families/gemm.py`), or with its memory-bound kernels
  (`families/elementwise.py`): inside a captured graph. That of the GEMMs (`captured_launch_s`) also applies to
  operations that were not measured, and to each further kernel of an operation; it is the `launch_s` of all prices
  here.
* `launch_s` or `start_s`, fitted with attention, experts and collectives, is a part of their kernels' time and
  seconds on every device (`families/attention.py`, `moe.py`, `collectives.py`).
* `Hardware.launch_s` and `.eager_launch_s`, of the device's file: the bare roofline's (`cost/roofline.py`), and the
  host's start of each kernel where no graph is captured (`ops.Launch`).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from graphsim.cost.base import Cost
from graphsim.cost.blocks import BLOCKS, KernelTime, Parameters, block_of
from graphsim.cost.blocks.gemm import captured_launch_s, constants
from graphsim.cost.families.registry import FAMILIES
from graphsim.cost.roofline import roofline, uncaptured_s
from graphsim.errors import GraphError, choices_text
from graphsim.hardware import Hardware
from graphsim.ops import Op, Residency
from graphsim.symbolic.expr import Expr
from graphsim.symbolic.questions import may_be_nonzero
from graphsim.units import Num

TINY_S = 1e-30
"""A time below any other, as the divisor instead of a time that may be 0."""


def price_of(op: Op, hardware: Hardware, parameters: Parameters, kernel_s: KernelTime) -> Cost:
    """The price of an operation: the same parts as the roofline's, another total.

    kernel_s: returns the seconds of its kernels; numbers may be symbols
    """
    base, total = roofline(op, hardware), latency_seconds(op, hardware, parameters, kernel_s)
    if op.family == "moe" and block_of("moe").is_within_block(op, parameters):
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
    seconds: Num = FAMILIES[shape.family].module.latency_s(parameters[shape.family], hardware, shape)
    return seconds if isinstance(seconds, Expr) else np.asarray(seconds)[()]


def latency_seconds(op: Op, hardware: Hardware, parameters: Parameters, kernel_s: KernelTime) -> Num:
    """Seconds by the family that the operation names, else by the stretched roofline.

    Kernels were measured with their operands in memory: for operands on the chip, the kernel's time is reduced in
    proportion to the scaled roofline; an assumption, since it was not measured. Raises GraphError for an operation
    that names no family of BLOCKS.
    """
    if op.residency is not Residency.All_offchip:
        off_chip = replace(op, residency=Residency.All_offchip)
        share = _stretched_s(op, hardware, parameters) / np.maximum(
            _stretched_s(off_chip, hardware, parameters), TINY_S
        )
        return share * latency_seconds(off_chip, hardware, parameters, kernel_s)
    if not op.family:
        return _stretched_s(op, hardware, parameters)
    if op.family not in BLOCKS:
        kind = type(op).__name__
        raise GraphError(f"{kind}.family = '{op.family}' is not known; {choices_text(op.family, BLOCKS)} or ''")
    measured_s = block_of(op.family).measured_s(op, hardware, parameters, kernel_s)
    return _stretched_s(op, hardware, parameters) if measured_s is None else _from_memory_s(op, hardware, measured_s)


def _from_memory_s(op: Op, hardware: Hardware, measured_s: Num) -> Num:
    """No less than weights, caches and states take from memory: in a loop over one kernel, small ones stay in the last
    level of cache, from which it is measured up to five times as fast.
    """
    lasting = op.lasting_bytes
    if not may_be_nonzero(lasting):
        return measured_s
    return np.maximum(measured_s, lasting / hardware.memory_bytes_per_s)


def _stretched_s(op: Op, hardware: Hardware, parameters: Parameters) -> Num:
    base, c = roofline(op, hardware), constants(parameters["gemm"])
    busy = np.maximum(c["compute"] * base.compute_s, np.maximum(c["dram"] * base.memory_s, base.network_s))
    busy = np.maximum(busy, base.busy_s)
    return busy + _starts_s(op, base, parameters, hardware)


def _starts_s(op: Op, base: Cost, parameters: Parameters, hardware: Hardware) -> Num:
    """Launch times of all kernels of an operation, if it has any work."""
    each = captured_launch_s(parameters, hardware)
    return np.where(base.launch_s > 0, each * op.launches + uncaptured_s(op), 0.0)[()]
