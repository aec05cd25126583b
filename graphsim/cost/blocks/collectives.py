"""Communication as shapes of the measured collectives."""

from __future__ import annotations

from collections.abc import Callable, Container
from functools import reduce, singledispatch

import numpy as np

from graphsim.cost.blocks import KernelTime, Parameters
from graphsim.cost.families.collectives import CollectiveShape
from graphsim.cost.families.elementwise import ElementwiseShape
from graphsim.cost.interconnect import runs_own_all_reduce
from graphsim.hardware import Hardware
from graphsim.ops import AllGather, AllReduce, AllReduceNorm, AllToAll, Collective, Op, ReduceScatter
from graphsim.units import Num


def measured_s(op: Op, hardware: Hardware, parameters: Parameters, kernel_s: KernelTime) -> Num | None:
    """With the norm that runs in the kernel of an all-reduce, or after it."""
    if not isinstance(op, Collective) or not kinds_of(op) or not parameters["collectives"]:
        return None
    seconds = collective_s(op, parameters["collectives"], hardware, kernel_s)
    return seconds + _norm_behind_s(op, hardware, kernel_s) if isinstance(op, AllReduceNorm) else seconds


def _norm_behind_s(op: AllReduceNorm, hardware: Hardware, kernel_s: KernelTime) -> Num:
    """Time that a residual and its norm add to an all-reduce: their bytes within its kernel, or a kernel after it."""
    within_s = op.work().memory_bytes / hardware.memory_bytes_per_s
    behind_s = kernel_s(ElementwiseShape(moved_bytes=op.behind.work().memory_bytes))
    return op.apart * behind_s + (1.0 - op.apart) * within_s


@singledispatch
def kinds_of(op: Op) -> tuple[str, ...]:
    """The measured collectives that can implement an operation; none if it was not measured.

    The vendor's library first; engines replace its all-reduce by their own where they can (`runs_own_all_reduce`) and
    that is faster; vLLM's runs in the captured graph up to 8 MiB (its `device_communicators/custom_all_reduce.py`).
    """
    return ()


@kinds_of.register
def _(op: AllReduce) -> tuple[str, ...]:
    return ("all_reduce", "custom_allreduce")


@kinds_of.register
def _(op: AllGather) -> tuple[str, ...]:
    return ("all_gather",)


@kinds_of.register
def _(op: ReduceScatter) -> tuple[str, ...]:
    return ("reduce_scatter",)


@kinds_of.register
def _(op: AllToAll) -> tuple[str, ...]:
    return ("alltoall",)


def collective_s(
    op: Collective, measured: Container[str], hardware: Hardware, kernel_s: Callable[[CollectiveShape], Num]
) -> Num:
    """Seconds of a collective in a graph: the library's, or the engine's own among the `measured` ones if it can be
    used.
    """
    library, *own = kinds_of(op)
    serving = [library, *(kind for kind in own if kind in measured)]
    shapes = [
        CollectiveShape(kind=kind, message_bytes=op.payload_bytes, devices=op.group, stride=op.stride)
        for kind in serving
    ]
    library_s, *others = map(kernel_s, shapes)
    if not others or not hardware.links:
        return library_s
    fastest_s = reduce(np.minimum, others, library_s)
    return np.where(runs_own_all_reduce(hardware, op.group, op.stride), fastest_s, library_s)[()]
