"""GEMMs, adapters' included, as calls of the measured kernels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphsim.cost.blocks import KernelTime, Parameters
from graphsim.cost.families import gemm
from graphsim.cost.families.gemm import GemmShape
from graphsim.cost.roofline import matrix_peak
from graphsim.hardware import Hardware
from graphsim.ops import Gemm, Op
from graphsim.units import Num


def measured_s(op: Op, hardware: Hardware, parameters: Parameters, kernel_s: KernelTime) -> Num | None:
    """Raises HardwareError if the device lacks the number format."""
    if not isinstance(op, Gemm) or not op.weights.gemm:
        return None
    matrix_peak(op, hardware)  # raises if the device lacks the format
    return product_s(parameters["gemm"], hardware, product_of(op), kernel_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Product:
    """`launches` calls of x[rows, k] @ w[k, n] by kernels of one dtype.

    further_bytes: traffic in addition to one weight and one input per call
    weight_bytes, activation_bytes: bytes per weight, scales included, and per number of inputs and results
    quantised_ahead: whether inputs arrive quantised
    """

    rows: Num
    n: Num
    k: Num
    launches: Num
    further_bytes: Num
    dtype: str
    weight_bytes: float
    activation_bytes: float
    quantised_ahead: bool = False


def product_of(op: Gemm) -> Product:
    """The calls that a node stands for."""
    n, k, further = op.each
    rows = op.m / np.maximum(op.launches, 1.0)
    return Product(
        rows=rows, n=n, k=k, launches=op.launches, further_bytes=further, dtype=op.weights.gemm,
        weight_bytes=op.weights.bytes, activation_bytes=op.activations.bytes, quantised_ahead=op.quantised,
    )  # fmt: skip


def kernel_shape(product: Product) -> GemmShape:
    """One call of a GEMM."""
    return GemmShape(
        m=product.rows, n=product.n, k=product.k, dtype=product.dtype, weight_bytes=product.weight_bytes,
        activation_bytes=product.activation_bytes, quantised_ahead=product.quantised_ahead,
    )  # fmt: skip


def product_s(
    parameters: Mapping[str, Any], hardware: Hardware, product: Product, kernel_s: Callable[[GemmShape], Num]
) -> Num:
    """Seconds of all calls of a GEMM, each with the time of `kernel_s`; without time there are no further bytes either.

    parameters: of the GEMM family
    """
    each_s = kernel_s(kernel_shape(product))
    further_s = constants(parameters)["dram"] * product.further_bytes / hardware.memory_bytes_per_s
    return each_s * product.launches + further_s * np.greater(each_s, 0.0)


def constants(parameters: Mapping[str, Any]) -> Mapping[str, float]:
    """The constants of 16-bit GEMMs, which represent the whole device."""
    entry: Mapping[str, float] = parameters.get("bfloat16", {}).get("constants", gemm.START)
    return entry


def captured_launch_s(parameters: Parameters, hardware: Hardware) -> Num:
    """Start of a kernel inside a captured graph, as fitted with the 16-bit GEMMs; `cost/measured.py` has the others."""
    return constants(parameters["gemm"])["launch_clocks"] / hardware.clock_hz
