"""What bitsandbytes runs in addition to the GEMMs of its formats: NF4's dequantisation, LLM.int8()'s outliers.

Kernels are counted in its source, release 0.45: `autograd/_functions.py` (MatMul4Bit, MatMul8bitLt) and
`functional.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from graphsim.errors import GraphError
from graphsim.ops.base import Op, OpType, Work
from graphsim.ops.saved import Saved
from graphsim.units import Num

NESTED_KERNELS = 3.0
"""Doubly quantised scales: widened, their mean added, and cast, before every GEMM."""

WIDEN_CLOCKS = 0.52
"""Clock cycles of one core per dequantised weight, with the branches through the code book of
releases up to 0.47. From Llama-3.1-70B on an H100 at batch 8 against batch 1 (`benchmarking/README.md`, release 0.45:
151 ms more for 68.5 G weights); slower than the memory of an A100 or H100, faster than that of a 4090. Pull request
1747 replaced the branches by a table, 1.4 to 2.1 times faster on those two."""

OUTLIER_KERNELS = 18.0
"""In addition to the GEMM of LLM.int8(): the cast to fp16 and back, the search for columns with an entry beyond the
threshold (absolute value, comparison, two reductions, three kernels of `argwhere`, one copy to the host), the
quantisation of rows, clearing the columns in it, both operands' columns (two look-ups, two factors, one cast), the
widening of the int32 result, and the GEMM in 16 bits that is added to it."""

OUTLIERS = 7.0
"""Columns whose inputs lie beyond the threshold: at most seven in models of 6.7 B to 13 B parameters (LLM.int8(),
arXiv 2208.07339, section 4.1)."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class BesideProduct(Op):
    """Work before or around a GEMM of m rows, k inputs and n outputs, in place."""

    op_type: ClassVar[OpType] = OpType.QUANTISE
    constant: ClassVar[bool] = True

    m: Num
    n: Num
    k: Num

    @property
    def saved(self) -> Saved:
        """Nothing: the backward pass widens the weight once more."""
        return Saved()

    @property
    def out_elems(self) -> Num:
        """Used in place; nothing flows along the edge."""
        return 0.0

    def cut(self, ways: Num) -> BesideProduct:
        """Raise GraphError: the GEMM is sharded before this is added."""
        raise GraphError(f"{type(self).__name__} is one device's shard of a GEMM and is not sharded again")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Dequantise(BesideProduct):
    """Widens a 4-bit weight before its GEMM, from more than `fused_tokens` rows on (QLoRA, arXiv 2305.14314, 3).

    The GEMM itself counts the stored weight; this op counts the dequantised copy that is written, and the bytes read
    in excess of the stored ones. With fewer rows one kernel does both.
    nested: whether the weights' scales are quantised in turn, and widened first whatever the rows
    """

    fused_tokens: Num
    nested: bool = False

    @property
    def widened(self) -> Num:
        """1 where the weight is written in 16 bits, else 0."""
        return np.greater(self.m, self.fused_tokens) * 1.0

    def work(self) -> Work:
        """Reads the stored weight, writes 16 bits per weight, which the GEMM reads instead of the stored ones.

        Nested scales, one for 64 weights, are read in 8 bits, and written and read twice in 32.
        """
        weight = self.n * self.k * self.widened
        scales = self.n * self.k / 64.0 * np.minimum(self.m, 1.0) if self.nested else 0.0
        return Work(
            vector_flops=2.0 * weight + 2.0 * scales,
            input_bytes=2.0 * weight + 9.0 * scales,
            write_bytes=2.0 * weight + 8.0 * scales,
        )

    @property
    def core_clocks(self) -> Num:
        """WIDEN_CLOCKS for each weight."""
        return WIDEN_CLOCKS * self.n * self.k * self.widened

    @property
    def launches(self) -> Num:
        """The widening, and the kernels for nested scales."""
        return (self.widened + (NESTED_KERNELS if self.nested else 0.0)) * np.minimum(self.m * self.n, 1.0)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Outliers(BesideProduct):
    """Columns of inputs that LLM.int8() multiplies in 16 bits: their search, and their part of the result.

    The GEMM itself counts int8 operands and a result of 16 bits. Host and device synchronise, since the host reads the
    number of columns.
    """

    host_waits: ClassVar[bool] = True

    def work(self) -> Work:
        """flops = 2mn for each outlier.

        Inputs pass 12 bytes each through cast, comparison and quantisation; the int32 result is written, read, written
        in 16 bits and added to, 12 bytes beyond what the GEMM counts; outliers' weights are widened.
        """
        live = np.minimum(self.m * self.n, 1.0)
        gathered, passed = OUTLIERS * self.n * live, self.m * self.k * live
        return Work(
            flops=2.0 * self.m * self.n * OUTLIERS,
            vector_flops=4.0 * passed + 2.0 * self.m * self.n,
            input_bytes=6.0 * passed + 6.0 * self.m * self.n + 5.0 * gathered,
            write_bytes=6.0 * passed + 6.0 * self.m * self.n + 4.0 * gathered,
        )

    @property
    def launches(self) -> Num:
        """All of them, if there are rows and outputs."""
        return OUTLIER_KERNELS * np.minimum(self.m * self.n, 1.0)
