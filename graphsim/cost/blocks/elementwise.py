"""Memory-bound operations, by the bytes that they move."""

from __future__ import annotations

import numpy as np

from graphsim.cost.blocks import KernelTime, Parameters
from graphsim.cost.blocks.gemm import captured_launch_s
from graphsim.cost.families.elementwise import ElementwiseShape
from graphsim.cost.roofline import compute_s
from graphsim.hardware import Hardware
from graphsim.ops import Op
from graphsim.units import Num


def measured_s(op: Op, hardware: Hardware, parameters: Parameters, kernel_s: KernelTime) -> Num | None:
    """Limited by the device's peaks, with the launches of further kernels."""
    work = op.work()
    moved = work.memory_bytes
    others = (op.launches - 1.0) * captured_launch_s(parameters, hardware) * np.greater(moved, 0.0)
    return np.maximum(kernel_s(ElementwiseShape(moved_bytes=moved)), compute_s(op, work, hardware)) + others
