"""Convolutions along time as products: every output row multiplies the rows under its taps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from graphsim.ops.base import OpType, Work
from graphsim.ops.linear import Gemm
from graphsim.units import Num


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Conv1d(Gemm):
    """A dense convolution: m output rows of n channels, k = taps times input channels, one output per `stride` rows.

    An implicit product: inputs are read once, not once for each tap.
    """

    op_type: ClassVar[OpType] = OpType.CONVOLUTION

    taps: Num
    stride: Num = 1.0

    def work(self) -> Work:
        """The product's flops; reads every input row, and the filters, once."""
        act = self.activations.bytes
        return Work(
            flops=2.0 * self.m * self.n * self.k,
            weight_bytes=self.n * self.k * self.weights.bytes * np.minimum(self.m, 1.0),
            input_bytes=self._input_elems * act,
            write_bytes=self.m * self.n * act,
        )

    @property
    def _input_elems(self) -> Num:
        return self.m * self.stride * self.k / self.taps

    @property
    def in_elems(self) -> Num | None:
        """All input rows."""
        return self._input_elems
