"""The roofline: an operation takes as long as its slowest resource at the datasheet's dense peak.

Williams, Waterman and Patterson, "Roofline: An Insightful Visual Performance Model", CACM 52(4), 2009.
"""

from __future__ import annotations

from functools import reduce
from typing import TYPE_CHECKING, cast

import numpy as np

from graphsim.cost.base import Cost
from graphsim.cost.families.formats import runs_widened
from graphsim.cost.interconnect import legs, require_reach
from graphsim.hardware import Hardware
from graphsim.ops import Op, Residency
from graphsim.ops.base import Work
from graphsim.ops.formats import RATES, SAME_WIDTH
from graphsim.ops.type_guards import is_collective, is_launch
from graphsim.symbolic.questions import may_be_nonzero
from graphsim.units import Num

if TYPE_CHECKING:
    from graphsim.ops import Collective
    from graphsim.ops.lora_kernels import LoraKernel


def roofline(op: Op, hardware: Hardware) -> Cost:
    """Time on the resource that the operation keeps busy longest, and the start of one kernel.

    busy = max(flops / peak, vector flops / vector peak, bytes / bandwidth, message / links + hops * latency)
    A message uses all levels of the interconnect that its group spans at once; the slowest one determines the time.
    Kernels for adapters run over tiles: max(that, clocks of all tiles, the empty ones too / core clocks, the clocks of
    the longest tile).
    Without work nothing is launched. Operands on the chip (`Op.residency`) cause no memory traffic as far as the
    last-level cache holds them; tiles, whose clocks include moving their operands, are faster by that traffic (an
    assumption, not measured). A launch takes the time in the device's file; `cost/calibrated.py` lists the fitted
    ones, which replace it.
    """
    if is_launch(op):
        return Cost(busy_s=hardware.eager_launch_s * op.times + op.called_s, launch_s=0.0)
    work = op.work()
    computing_s = compute_s(op, work, hardware)
    memory_s = _off_chip_bytes(op, work, hardware) / hardware.memory_bytes_per_s
    network_s: Num = 0.0
    if is_collective(op):
        network_s = collective_s(op, hardware)
    if may_be_nonzero(work.host_bytes):
        network_s = network_s + work.host_bytes / hardware.host_link.bytes_per_s
    busy_s = reduce(np.maximum, (computing_s, memory_s, network_s))
    if op.tiled:
        spared_s = work.memory_bytes / hardware.memory_bytes_per_s - memory_s
        busy_s = np.maximum(busy_s, _tiles_s(cast("LoraKernel", op), hardware, spared_s))
    return Cost(
        busy_s=busy_s,
        compute_s=computing_s,
        memory_s=memory_s,
        network_s=network_s,
        launch_s=(hardware.launch_s * op.launches + uncaptured_s(op)) * np.greater(busy_s, 0.0)[()],
    )


def _tiles_s(op: LoraKernel, hardware: Hardware, spared_s: Num) -> Num:
    """Seconds of a kernel's tiles.

    spared_s: memory traffic saved by operands on the chip
    """
    tiles_s = (op.tile_core_clocks + op.empty_core_clocks) / (hardware.cores * hardware.clock_hz)
    return np.maximum(np.maximum(tiles_s - spared_s, 0.0), op.longest_clocks / hardware.clock_hz)


def uncaptured_s(op: Op) -> Num:
    """Host time to launch an adapter kernel in a step that is not a captured graph."""
    return cast("LoraKernel", op).uncaptured_s if op.tiled else 0.0


def _off_chip_bytes(op: Op, work: Work, hardware: Hardware) -> Num:
    """Traffic of device memory: of operands on the chip, only what its last-level cache does not hold.

    The cache's own time is left out, so time on the chip is a lower bound.
    """
    if op.residency is Residency.All_offchip:
        return work.memory_bytes
    return np.maximum(work.memory_bytes - hardware.cache_bytes, 0.0)


def compute_s(op: Op, work: Work, hardware: Hardware) -> Num:
    """Seconds at the peaks of the vector and the matrix units, or of the clocks stated, whichever takes longest."""
    vector_s = work.vector_flops / hardware.vector_flops_per_s
    if may_be_nonzero(op.core_clocks):
        vector_s = np.maximum(vector_s, op.core_clocks * _clock_s(hardware))
    return np.maximum(vector_s, work.flops / matrix_peak(op, hardware)) if may_be_nonzero(work.flops) else vector_s


CORE_FLOPS = 277.0
"""Flops of the ordinary units in a clock of the core whose clocks `Op.core_clocks` counts: an H100's SM."""


def _clock_s(hardware: Hardware) -> Num:
    """Seconds in which all cores together perform one core's work of a clock; a wide core such as a TPU's counts as
    many.
    """
    return np.minimum(1.0 / (hardware.cores * hardware.clock_hz), CORE_FLOPS / hardware.vector_flops_per_s)


def matrix_peak(op: Op, hardware: Hardware) -> Num:
    """Dense peak in flop/s for the format in which the operation multiplies.

    Weights in a format that the device has no unit for are dequantised if weight-only kernels exist.
    Raises HardwareError listing the formats that the device states.
    """
    wanted = getattr(op, "matrix_format", "") or op.activations.compute
    widened = RATES[op.activations.compute] if runs_widened(hardware, wanted) else ()
    for name in (wanted, *SAME_WIDTH.get(wanted, ()), *widened):
        if name in hardware.flops_per_s:
            return hardware.flops_per_s[name]
    return hardware.peak(wanted)


def collective_s(op: Collective, hardware: Hardware) -> Num:
    """Seconds on the links of a group: the slowest level, plus the hops of all levels.

    Raises HardwareError if no level reaches all devices of the group.
    """
    from graphsim.ops import AllToAll, SendReceive

    if not hardware.links and not np.any(np.asarray(op.group) > 1):
        return 0.0
    require_reach(hardware, op.group, op.stride)
    wire_s: Num = 0.0
    hops_s: Num = 0.0
    for leg in legs(hardware, np.maximum(op.group, 1.0), op.stride):
        sent = op.leg(leg.below, leg.count)
        rate = leg.one_link_bytes_per_s if isinstance(op, SendReceive) else leg.bytes_per_s
        relayed = leg.relayed if isinstance(op, AllToAll) else 1.0
        wire_s = np.maximum(wire_s, sent.message_bytes * relayed / rate)
        hops_s = hops_s + sent.message_hops * leg.link.latency_s
    return wire_s + hops_s
