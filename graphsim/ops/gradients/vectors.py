"""Gradients of norms, and of learned vectors."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from graphsim.ops.base import Op, OpType, Work
from graphsim.ops.gradients.gradient import Gradient
from graphsim.ops.linear import limited
from graphsim.units import Num


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class NormBackward(Gradient, Op):
    """The gradient of the input of a norm over `rows` rows of `width`, with `vectors` learned vectors.

    local, groups, units: as of the norm
    """

    op_type: ClassVar[OpType] = OpType.NORM
    family: ClassVar[str] = "elementwise"

    rows: Num
    width: Num
    vectors: Num = 1.0
    local: bool = False
    groups: int = 0
    units: Num = 0.0

    def work(self) -> Work:
        """Reads the gradient, the kept input and a learned vector, writes the gradient; about eight steps each."""
        moved = self.rows * self.width * self.activations.bytes
        live = np.minimum(np.ceil(self.rows), 1.0)
        return Work(
            vector_flops=8.0 * self.rows * self.width,
            weight_bytes=np.minimum(self.vectors, 1.0) * self.width * self.activations.bytes * live,
            input_bytes=2.0 * moved,
            write_bytes=moved,
        )

    @property
    def out_elems(self) -> Num:
        """rows times width."""
        return self.rows * self.width

    @property
    def out_rows(self) -> Num | None:
        """rows."""
        return self.rows

    def cut(self, ways: Num) -> NormBackward:
        """A share of each row, where rows are sliced; else a share of the rows."""
        if self.groups:
            return replace(self, width=self.width / ways)
        return replace(self, rows=self.rows / limited(ways, self.units))

    def cut_tokens(self, ways: Num) -> NormBackward:
        """A share of the rows."""
        return replace(self, rows=self.rows / ways)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class VectorGradient(Gradient, Op):
    """The gradients of `vectors` learned vectors of `width`: sums over `rows` rows of `reads` values.

    across: whether rows lie side by side on a device that has a part of them, as heads do, each with the whole vector
    """

    op_type: ClassVar[OpType] = OpType.ELEMENTWISE
    family: ClassVar[str] = "elementwise"
    ends: ClassVar[bool] = True

    rows: Num
    width: Num
    vectors: Num = 1.0
    reads: Num = 1.0
    across: bool = False

    def work(self) -> Work:
        """Reads the gradient and what was kept, writes the vectors."""
        elems, act = self.rows * self.width, self.activations.bytes
        live = np.minimum(np.ceil(self.rows), 1.0)
        return Work(
            vector_flops=elems * self.vectors * np.maximum(2.0 * self.reads - 1.0, 1.0),
            input_bytes=elems * self.reads * act,
            write_bytes=self.vectors * self.width * act * live,
        )

    @property
    def out_elems(self) -> Num:
        """The vectors."""
        return self.vectors * self.width * np.minimum(np.ceil(self.rows), 1.0)

    def cut(self, ways: Num) -> VectorGradient:
        """A share of the vectors; of the rows, where these lie side by side."""
        return self.cut_tokens(ways) if self.across else replace(self, width=self.width / ways)

    def cut_tokens(self, ways: Num) -> VectorGradient:
        """A share of the rows: the result is a partial sum."""
        return replace(self, rows=self.rows / ways)
