"""Norms that an engine runs within another kernel: after the sum of a residual, and within an all-reduce.

vLLM 0.33, `model_executor/layers/layernorm.py`, fused_add_rms_norm, and `compilation/passes/fusion`,
AllReduceFusionPass: both results overwrite both inputs, so they need no memory of their own.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from graphsim.ops.base import Sharding, Work
from graphsim.ops.collectives import AllReduce
from graphsim.ops.norms import Norm
from graphsim.units import Num

SUM, NORMED = "sum", "normed"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AddNorm(Norm):
    """Adds a residual and normalises the sum, in one kernel; parts `sum` and `normed`."""

    def work(self) -> Work:
        """Reads both values and the learned vectors, writes the sum and the rows; one more step per element."""
        moved = self.rows * self.width * self.activations.bytes
        alone = Norm.work(self)
        return replace(
            alone, vector_flops=alone.vector_flops + self.rows * self.width, input_bytes=alone.input_bytes + moved,
            write_bytes=2.0 * moved,
        )  # fmt: skip

    @property
    def out_parts(self) -> dict[str, Num]:
        """`sum` and `normed`, each in place of an input."""
        return {SUM: self.out_elems, NORMED: self.out_elems}

    @property
    def in_elems(self) -> Num | None:
        """Both values."""
        return 2.0 * self.rows * self.width


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AllReduceNorm(AllReduce):
    """An all-reduce whose result is added to a residual and normalised within the same kernel; parts as in `AddNorm`.

    rows, width, vectors: of the norm
    apart: 1 where the message is too large for that, so that sum and norm are a kernel after it
    """

    sharding: ClassVar[Sharding] = Sharding.WHOLE

    rows: Num
    width: Num
    vectors: Num = 1.0
    apart: Num = 0.0

    @property
    def behind(self) -> AddNorm:
        """Sum and norm as a kernel of their own."""
        return AddNorm(
            role=self.role, rows=self.rows, width=self.width, vectors=self.vectors, activations=self.activations,
            layer=self.layer,
        )  # fmt: skip

    def work(self) -> Work:
        """Work of both; within one kernel, the reduced values are not read again."""
        again = (1.0 - self.apart) * self.rows * self.width * self.activations.bytes
        alone = self.behind.work()
        return AllReduce.work(self) + replace(alone, input_bytes=alone.input_bytes - again)

    @property
    def launches(self) -> Num:
        """Launches of the all-reduce, and one more where the norm is a separate kernel."""
        reduced: Num = np.minimum(self.elems, 1.0) * np.minimum(self.group - 1.0, 1.0)
        launches: Num = reduced + self.apart * np.minimum(np.ceil(self.rows), 1.0)
        return launches

    @property
    def is_view(self) -> bool:
        """Never: a single device still adds and normalises."""
        return False

    @property
    def parameters(self) -> Num:
        """The learned vectors."""
        return self.vectors * self.width

    @property
    def out_parts(self) -> dict[str, Num]:
        """`sum` and `normed`, each in place of an input."""
        return {SUM: self.elems, NORMED: self.elems}
