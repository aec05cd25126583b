"""Kernels of training in isolated benchmarks: one operation, forward and backward, with cold caches.

    t = max( sum of the kernels' times on the device,  the host's time to launch them - the time to clear the cache )

The benchmarks write 256 MiB before each run to evict the cache, and the host launches meanwhile: only the remaining
host time is visible (`triton.testing.do_bench`). Bytes are counted off the code of PyTorch, transformers and Liger;
rates are those of the device's calibration, and the constants below.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from graphsim.cost.base import CostModel
from graphsim.cost.choose import choose_cost
from graphsim.hardware import Hardware
from graphsim.ops.elementwise import Elementwise
from graphsim.ops.formats import FORMATS
from graphsim.ops.linear import Gemm
from graphsim.units import Num

CLEARED_BYTES = 256.0 * 2.0**20
"""Written before each run."""

SLOWER = {"stream": 1.0, "cast": 1.25, "reduce": 1.1, "broadcast": 1.1, "strided_16_bit": 1.8}
"""Slowdown per byte relative to a contiguous pass over large arrays, by access pattern.

cast, reduce, broadcast: PyTorch's kernels that convert, sum rows or spread a number over a row, in 4 bytes
strided_16_bit: its kernels on 2-byte values of other strides or spread over rows, which read single values
Fitted on the A100's rows of rms_norm and rope; its other rows and all of the H100's were left out.
"""

ROW_ELEMENT_S = 1.05e-9
"""Seconds of one multiprocessor per element of rows that a Triton program processes sequentially, alternating between
reading and computing (Liger's norms backward: one program for each multiprocessor). From the A100's rms_norm.
"""
SPILLED = 1.75
"""Slowdown if a row is too long for registers."""
LONG_ROW = 32768.0
"""Elements of such a row."""

HOST_OP_S = 1e-5
"""Host seconds per kernel launched by PyTorch, including autograd's bookkeeping. This and the host's
other times were chosen with the shortest times of several kernels on both devices in view: these rows are not left out.
"""
HOST_FUNCTION_S = 4e-5
"""For each call into an autograd function written in Python."""
HOST_TRITON_S = 3e-5
"""For each launch of a Triton kernel."""
HOST_ENGINE_S = 3e-5
"""For waking the thread of autograd's engine and handing gradients to the leaves."""
HOST_GRAPH_S = 5e-5
"""For making and dropping autograd's graph within one run."""
HOST_SLOWER = {"ampere": 1.15, "hopper": 0.92}
"""Slowdown of the hosts of the two devices."""
EVENTS_S = 4.5e-6
"""Between the events that a run is timed by, beyond the kernels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """`times` launches of one kernel that together move `moved_bytes`, or of one GEMM each.

    kind: of SLOWER
    by: launched by, `torch` or `triton`; GEMM: m, n, k and format
    seconds: in addition to the traffic
    walked: elements of rows, `width` long, that programs walk one after another
    """

    moved_bytes: Num = 0.0
    kind: str = "stream"
    times: Num = 1.0
    by: str = "torch"
    product: tuple[Num, Num, Num, str] | None = None
    seconds: Num = 0.0
    walked: Num = 0.0
    width: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Lone:
    """One operation under one implementation.

    functions: number of autograd functions in Python per direction
    waits: whether the host waits for the device
        half-way
    host_ops: further host calls without a launch, forward and backward
    peak_bytes: most allocated while it runs, by the mode (`forward`, `backward`, `full`), everything held included
    """

    forward: tuple[Launch, ...]
    backward: tuple[Launch, ...]
    functions: float = 0.0
    waits: bool = False
    host_ops: tuple[float, float] = (0.0, 0.0)
    peak_bytes: Mapping[str, Num] = field(default_factory=dict)


def lone_s(lone: Lone, mode: str, hardware: Hardware) -> float:
    """Seconds of a run of one mode: `forward`, `backward` or `full`."""
    price, _ = choose_cost(None, hardware)
    device, host = EVENTS_S, 0.0
    if mode != "backward":
        device += sum(_device_s(launch, price, hardware) for launch in lone.forward)
        host += _host_s(lone, lone.forward, lone.host_ops[0])
        device += HOST_TRITON_S + HOST_FUNCTION_S if lone.waits else 0.0
    if mode != "forward":
        device += sum(_device_s(launch, price, hardware) for launch in lone.backward)
        host += _host_s(lone, lone.backward, lone.host_ops[1]) + HOST_ENGINE_S
    host += HOST_GRAPH_S if mode == "full" else 0.0
    cleared = _device_s(Launch(moved_bytes=CLEARED_BYTES), price, hardware)
    return max(device, host * HOST_SLOWER.get(hardware.architecture, 1.0) - cleared)


def _host_s(lone: Lone, launches: tuple[Launch, ...], more: float) -> float:
    each = sum(float(launch.times) * (HOST_TRITON_S if launch.by == "triton" else HOST_OP_S) for launch in launches)
    return each + lone.functions * HOST_FUNCTION_S + more * HOST_OP_S


def _device_s(launch: Launch, price: CostModel, hardware: Hardware) -> float:
    seconds = _traffic_s(launch, price, hardware)
    if launch.product is not None:
        m, n, k, name = launch.product
        op = Gemm(m=m, n=n, k=k, weights=FORMATS[name], activations=FORMATS[name])
        seconds += float(launch.times * price(op, hardware).latency_s)
    if launch.walked:
        spilled = SPILLED if launch.width >= LONG_ROW else 1.0
        seconds = max(seconds, float(launch.walked / hardware.cores * ROW_ELEMENT_S * spilled))
    return seconds


def _traffic_s(launch: Launch, price: CostModel, hardware: Hardware) -> float:
    each = launch.moved_bytes / launch.times * SLOWER[launch.kind]
    if not each:
        return float(launch.seconds)
    op = Elementwise(elems=each / 4.0, reads=1.0)
    return float(launch.times * price(op, hardware).latency_s + launch.seconds)
