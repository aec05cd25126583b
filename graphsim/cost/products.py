"""Matrix products in a graph, adapters' included, as calls of the measured kernels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphsim.cost.families import gemm
from graphsim.cost.families.gemm import GemmShape
from graphsim.hardware import Hardware
from graphsim.ops import Gemm, HeadGemm, LoraGemm
from graphsim.units import Num

FORMATS = {
    "fp32": "float32", "bf16": "bfloat16", "fp16": "bfloat16", "fp8": "fp8", "fp8_block": "fp8_block", "int8": "int8",
    "nvfp4": "nvfp4", "mxfp4": "w4a16_mxfp4", "int4": "int4_wo", "nf4": "nf4", "nf4_dq": "nf4",
}  # fmt: skip
"""The GEMM family's name of each weight format; those that are widened to the activations' are weight-only."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Product:
    """`launches` calls of x[rows, k] @ w[k, n] in one number format.

    further_bytes: traffic beyond that of one weight and one input per call
    """

    rows: Num
    n: Num
    k: Num
    launches: Num
    further_bytes: Num
    dtype: str


def product_of(op: Gemm) -> Product:
    """The calls behind a node.

    Every adapter beyond a call's first brings its own factor; in a block-diagonal one an output meets the inputs of its
    block only. Products of many heads, one weight for each, run as one
    kernel over the outputs of all; every head beyond the first brings its own input.
    """
    launches, n, k = op.launches, op.n, op.k
    further: Num = 0.0
    if isinstance(op, LoraGemm):
        k = k / op.blocks
        further = np.maximum(op.work().weight_bytes - launches * n * k * op.weights.bytes, 0.0)
    elif isinstance(op, HeadGemm):
        n = op.heads * n
        further = np.maximum(op.heads - 1.0, 0.0) * op.m * op.k * op.activations.bytes
    rows = op.m / np.maximum(launches, 1.0)
    dtype = FORMATS.get(op.weights.name, "bfloat16")
    return Product(rows=rows, n=n, k=k, launches=launches, further_bytes=further, dtype=dtype)


def product_s(
    parameters: Mapping[str, Any], hardware: Hardware, product: Product, kernel_s: Callable[[GemmShape], Num]
) -> Num:
    """Seconds of all calls of a product, each of which takes what `kernel_s` gives; no time, no further bytes.

    parameters: of the GEMM family
    """
    each_s = kernel_s(GemmShape(m=product.rows, n=product.n, k=product.k, dtype=product.dtype))
    further_s = constants(parameters)["dram"] * product.further_bytes / hardware.memory_bytes_per_s
    return each_s * product.launches + further_s * np.greater(each_s, 0.0)


def constants(parameters: Mapping[str, Any]) -> Mapping[str, float]:
    """The constants of 16-bit products, which speak for the whole device."""
    entry: Mapping[str, float] = parameters.get("bfloat16", {}).get("constants", gemm.START)
    return entry
