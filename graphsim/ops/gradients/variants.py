"""Gradients of the operations that PEFT's methods other than LoRA add around a linear."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, cast

import numpy as np

from graphsim.ops.adapter_values import RotateInput
from graphsim.ops.adapter_weights import BuiltWeights
from graphsim.ops.base import BF16, Op, OpType, Sharding, Work
from graphsim.ops.formats import Format
from graphsim.ops.gradients.gradient import Gradient
from graphsim.ops.linear import limited
from graphsim.units import Num


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DoraScaleBackward(Gradient, Op):
    """The gradient of a scaled sum y + (g - 1) y + g s y_lora, where g is held: dy g for both; and that of g.

    PEFT's element-wise kernels one by one: dy s g, dy (g - 1), its sum with dy, and the products dy y, dy y_lora whose
    column sums are the gradient of g. factors: format of A and B, and so of y_lora and g
    """

    op_type: ClassVar[OpType] = OpType.ELEMENTWISE
    sharding: ClassVar[Sharding] = Sharding.LINEAR
    family: ClassVar[str] = "elementwise"

    adapter: bool = True
    m: Num
    n: Num
    units: Num = 0.0
    factors: Format = BF16
    launches: Num = 6.0

    def work(self) -> Work:
        """Eight reads and five writes of every value."""
        moved = self.m * self.n * self.activations.bytes
        return Work(vector_flops=6.0 * self.m * self.n, input_bytes=8.0 * moved, write_bytes=5.0 * moved)

    @property
    def out_rows(self) -> Num | None:
        """m."""
        return self.m

    @property
    def out_elems(self) -> Num:
        """Elements of the sum of y and y_lora."""
        return self.m * self.n

    def cut(self, ways: Num) -> DoraScaleBackward:
        """A share of the outputs."""
        return replace(self, n=self.n / limited(ways, self.units))

    def cut_tokens(self, ways: Num) -> DoraScaleBackward:
        """A share of the rows."""
        return replace(self, m=self.m / ways)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class BuiltWeightsBackward(Gradient, BuiltWeights):
    """The gradient of the parameters of which weights were made, from that of the weights.

    Each product on the way has two gradients of its size, each elementary step reads its operands and writes two
    gradients: twice the forward's flops and traffic.
    """

    ends: ClassVar[bool] = True
    constant: ClassVar[bool] = False

    def work(self) -> Work:
        """Twice the work of computing the weights, plus reading their gradient."""
        made, live = BuiltWeights.work(self), np.minimum(self.rank, 1.0) * self.copies
        return Work(
            flops=2.0 * made.flops,
            vector_flops=2.0 * made.vector_flops,
            weight_bytes=made.weight_bytes,
            input_bytes=2.0 * made.input_bytes + self.elems * self.made.bytes * live,
            write_bytes=2.0 * made.write_bytes + self.held * self.factors.bytes * live,
        )

    @property
    def out_elems(self) -> Num:
        """Elements of the parameters."""
        return self.held


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RotationInputGradient(Gradient, RotateInput):
    """dx = dy R^T of each block: inputs and width are those of dy and dx."""

    @property
    def placement(self) -> Sharding:
        """Where devices cut a dense block over its inputs, each has a part of dx and needs all of dy."""
        placed = RotateInput.placement.fget(self)  # type: ignore[attr-defined]
        return Sharding.COLUMN if placed is Sharding.ROW else placed

    def cut(self, ways: Num) -> RotationInputGradient:
        """Of a dense one a part of what goes out."""
        if self.dense:
            return replace(self, width=self.width / limited(ways, self.units))
        return cast("RotationInputGradient", RotateInput.cut(self, ways))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RotationGradient(Gradient, RotateInput):
    """The gradient of the matrices that rotate blocks: x^T dy of each block."""

    ends: ClassVar[bool] = True

    def work(self) -> Work:
        """As many flops as the rotation; reads x and dy, writes the matrices' gradient."""
        act, live = self.activations.bytes, np.minimum(self.rows, 1.0)
        return Work(
            flops=2.0 * self.rows * self.width * self.block,
            input_bytes=self.rows * (self.inputs + self.width) * act,
            write_bytes=self.width * self.block * self.weights.bytes * live,
        )

    @property
    def cut_as(self) -> Sharding | None:
        """As weights are: over the inputs of a dense block, by blocks, or not at all."""
        if self.split is not Sharding.ROW:
            return None
        return Sharding.ROW if self.dense else Sharding.DEALT

    @property
    def out_rows(self) -> Num | None:
        """None: the result is matrices."""
        return None

    @property
    def out_elems(self) -> Num:
        """Elements of all matrices."""
        return self.width * self.block * np.minimum(self.rows, 1.0)

    @property
    def in_elems(self) -> Num | None:
        """x and dy."""
        return self.rows * (self.inputs + self.width)
