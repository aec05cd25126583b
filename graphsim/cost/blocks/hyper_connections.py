"""The two sides of a hyper-connection, as shapes of the measured kernels."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from graphsim.cost.blocks import KernelTime, Parameters
from graphsim.cost.families.hyper_connections import HyperConnectionShape
from graphsim.cost.roofline import compute_s
from graphsim.hardware import Hardware
from graphsim.ops import CollapseStreams, ExpandStreams, Op
from graphsim.units import Num


def measured_s(op: Op, hardware: Hardware, parameters: Parameters, kernel_s: KernelTime) -> Num | None:
    """Limited by the device's peaks."""
    if not parameters["hyper_connections"]:
        return None
    measured_s = hyper_connection_s(op, kernel_s)
    return None if measured_s is None else np.maximum(measured_s, compute_s(op, op.work(), hardware))


def hyper_connection_s(op: Op, kernel_s: Callable[[HyperConnectionShape], Num]) -> Num | None:
    """Seconds of one side of a hyper-connection in a graph; None if it was not measured.

    Streams that are not mixed with each other have fewer weights to compute, but are still read and written.
    """
    if isinstance(op, CollapseStreams):
        projected, phase = op.projected, "pre"
    elif isinstance(op, ExpandStreams):
        projected, phase = op.streams * (2.0 + op.streams), "post"
    else:
        return None
    return kernel_s(HyperConnectionShape(
        tokens=op.tokens, hidden=op.width, streams=op.streams, projected=projected, phase=phase,
    ))  # fmt: skip
