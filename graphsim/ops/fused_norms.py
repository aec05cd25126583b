"""Norms that an engine runs within the kernel that adds a residual; `reduced_norms.py` has those in an all-reduce.

vLLM 0.33, `model_executor/layers/layernorm.py`, fused_add_rms_norm, and `compilation/passes/fusion`,
AllReduceFusionPass: both results overwrite both inputs, so they need no memory of their own.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from graphsim.ops.base import Work
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
