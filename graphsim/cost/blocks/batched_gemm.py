"""The GEMMs of many heads, one weight for each, as one measured kernel."""

from __future__ import annotations

import numpy as np

from graphsim.cost.blocks import KernelTime, Parameters, gemm
from graphsim.cost.families.batched_gemm import BatchedShape
from graphsim.cost.roofline import roofline
from graphsim.hardware import Hardware
from graphsim.ops import HeadGemm, Op
from graphsim.units import Num


def measured_s(op: Op, hardware: Hardware, parameters: Parameters, kernel_s: KernelTime) -> Num | None:
    """As one GEMM over the outputs of all heads if no batched one was measured.

    Its weights come from memory in every layer, those of the measured calls from the cache.
    """
    if not isinstance(op, HeadGemm) or not op.weights.gemm or not parameters.get("batched_gemm"):
        return gemm.measured_s(op, hardware, parameters, kernel_s)
    return np.maximum(kernel_s(batched_shape(op)), roofline(op, hardware).busy_s)


def batched_shape(op: HeadGemm) -> BatchedShape:
    """The batched kernel of many heads."""
    return BatchedShape(
        m=op.m, n=op.n, k=op.k, heads=op.heads, dtype=op.weights.gemm, weight_bytes=op.weights.bytes,
        activation_bytes=op.activations.bytes,
    )  # fmt: skip
