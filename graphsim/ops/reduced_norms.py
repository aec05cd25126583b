"""Norms that an engine runs within the kernel of an all-reduce; the source is that of `fused_norms.py`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from graphsim.ops.base import Sharding, Work
from graphsim.ops.collectives import AllReduce
from graphsim.ops.fused_norms import NORMED, SUM, AddNorm
from graphsim.units import Num


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
