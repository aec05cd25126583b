"""An operation without a formula in graphsim: its author states its work."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from graphsim.ops.base import Op, OpType, Work
from graphsim.units import Num

NO_FORMULA = "no formula"
"""How the note of an operation begins that is priced by its bytes moved only, since it has no formula."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Compute(Op):
    """`reads` elements in, `elems` out, with the stated work.

    flops: of matrix units
    vector_flops: of the ordinary ones
    weights: elements of its own, in the activations' format
    state: elements that outlive the step (a recurrent state), read and written once
    launches: kernels that it starts
    unchecked: the size of the inputs need not equal what is read
    note: the author's description
    """

    op_type: ClassVar[OpType] = OpType.ELEMENTWISE

    elems: Num
    reads: Num
    flops: Num = 0.0
    vector_flops: Num = 0.0
    weights_elems: Num = 0.0
    state_elems: Num = 0.0
    launches: Num = 1.0
    unchecked: bool = False
    note: str = ""

    def work(self) -> Work:
        """The stated work; every input, weight and state is read once, result and state are written once."""
        act = self.activations.bytes
        live = np.minimum(self.elems, 1.0)
        return Work(
            flops=self.flops,
            vector_flops=self.vector_flops,
            weight_bytes=self.weights_elems * act * live,
            input_bytes=(self.reads + self.state_elems) * act,
            write_bytes=(self.elems + self.state_elems) * act,
        )

    @property
    def parameters(self) -> Num:
        """Its own weights."""
        return self.weights_elems

    @property
    def state_bytes(self) -> Num:
        """The state, in the activations' format."""
        return self.state_elems * self.activations.bytes

    @property
    def out_elems(self) -> Num:
        """The results."""
        return self.elems

    @property
    def in_elems(self) -> Num | None:
        """All inputs together, unless unchecked."""
        return None if self.unchecked else self.reads

    def cut(self, ways: Num) -> Compute:
        """An equal share of everything: channels are distributed with their weights and state."""
        share = {
            name: getattr(self, name) / ways
            for name in ("elems", "reads", "flops", "vector_flops", "weights_elems", "state_elems")
        }
        return replace(self, **share)
