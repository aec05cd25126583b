"""The gradient of an embedding table."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from graphsim.ops.base import Op, OpType, Sharding, Work
from graphsim.ops.gradients.gradient import Gradient
from graphsim.units import Num


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EmbeddingBackward(Gradient, Op):
    """Adds `tokens` rows of `width` into the gradient of a table of `entries`, which is dense and cleared first.

    whole: whether the table is not cut, as of positions
    """

    op_type: ClassVar[OpType] = OpType.EMBEDDING
    sharding: ClassVar[Sharding] = Sharding.WHOLE
    family: ClassVar[str] = "elementwise"
    ends: ClassVar[bool] = True

    tokens: Num
    entries: Num
    width: Num
    whole: bool = False

    def work(self) -> Work:
        """Reads the rows and those of the table they are added to; clears the table and writes the rows."""
        act = self.activations.bytes
        moved, table = self.tokens * self.width * act, self.entries * self.width * act
        live = np.minimum(self.tokens, 1.0)
        return Work(vector_flops=self.tokens * self.width, input_bytes=2.0 * moved, write_bytes=moved + table * live)

    @property
    def out_elems(self) -> Num:
        """The table."""
        return self.entries * self.width * np.minimum(self.tokens, 1.0)

    def cut(self, ways: Num) -> EmbeddingBackward:
        """A share of the entries, unless the table is not cut."""
        return self if self.whole else replace(self, entries=self.entries / ways)
