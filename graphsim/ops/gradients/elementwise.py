"""Gradients of memory-bound operations, and sums of gradients."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from graphsim.ops.base import Op, OpType, Sharding, Work
from graphsim.ops.elementwise import Rope
from graphsim.ops.gradients.gradient import Gradient
from graphsim.units import Num


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ElementwiseBackward(Gradient, Op):
    """The gradients of the inputs of an operation on `elems` elements, from that of its result and `reads` kept values.

    gives: elements of each input, whose gradient is a part: `0`, `1`, …
    """

    op_type: ClassVar[OpType] = OpType.ELEMENTWISE
    family: ClassVar[str] = "elementwise"

    elems: Num
    reads: Num = 1.0
    steps: Num = 1.0
    gives: tuple[Num, ...] = ()

    def work(self) -> Work:
        """Reads the result's gradient and what was kept, writes the inputs' gradients."""
        act = self.activations.bytes
        return Work(
            vector_flops=self.elems * self.steps,
            input_bytes=(1.0 + self.reads) * self.elems * act,
            write_bytes=self.out_elems * act,
        )

    @property
    def out_elems(self) -> Num:
        """Elements of all inputs together."""
        return sum(self.gives, start=0.0) if self.gives else self.elems

    @property
    def out_parts(self) -> dict[str, Num]:
        """Elements of each input."""
        return {str(i): size for i, size in enumerate(self.gives)}

    def cut(self, ways: Num) -> ElementwiseBackward:
        """An equal share of the elements."""
        return replace(self, elems=self.elems / ways, gives=tuple(size / ways for size in self.gives))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ColumnScaleBackward(ElementwiseBackward):
    """The gradient of a value whose columns were multiplied by numbers."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ActivationBackward(ElementwiseBackward):
    """The gradient of an activation function and of the values that it gates."""

    op_type: ClassVar[OpType] = OpType.ACTIVATION


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AddGradients(Gradient, Op):
    """The sum of `reads` gradients of one value that several operations used; linear, as additions are.

    launches: kernels, one for each further gradient
    """

    op_type: ClassVar[OpType] = OpType.ADD
    sharding: ClassVar[Sharding] = Sharding.LINEAR
    family: ClassVar[str] = "elementwise"
    follows: ClassVar[bool] = True

    elems: Num
    reads: Num = 2.0
    launches: Num = 1.0

    def work(self) -> Work:
        """Autograd adds them one at a time: reads two, writes one."""
        moved = (self.reads - 1.0) * self.elems * self.activations.bytes
        return Work(vector_flops=(self.reads - 1.0) * self.elems, input_bytes=2.0 * moved, write_bytes=moved)

    @property
    def out_elems(self) -> Num:
        """As many as of each."""
        return self.elems

    def cut(self, ways: Num) -> AddGradients:
        """An equal share of the elements; of what it adds, as `follows` says."""
        return replace(self, elems=self.elems / ways)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RopeBackward(Gradient, Rope):
    """Gradients of queries and keys rotated back, with the work of the rotation; parts `q` and `k`."""

    @property
    def in_elems(self) -> Num | None:
        """The other gradients in the result of attention's, such as that of values."""
        return None
