"""Gradients of operations that fuse multiplications and elementwise steps: one for each operand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from graphsim.ops.base import Op, OpType, Sharding, Work
from graphsim.ops.elementwise import Add
from graphsim.ops.gradients.gradient import Gradient
from graphsim.units import Num


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DoubledBackward(Gradient, Op):
    """The gradients of an operation's inputs: each multiplication has two of its size, each step reads and writes two.

    flops, vector_flops, moved_bytes: of the operation, forward
    times: how often that
    launches: kernels, backward
    gives: elements of each input, whose gradient is a part: `0`, `1`, …
    """

    op_type: ClassVar[OpType] = OpType.ELEMENTWISE
    sharding: ClassVar[Sharding] = Sharding.WHOLE

    flops: Num = 0.0
    vector_flops: Num = 0.0
    moved_bytes: Num = 0.0
    gives: tuple[Num, ...] = ()
    times: float = 2.0
    launches: Num = 2.0

    def work(self) -> Work:
        """`times` the forward's; half of the bytes are read, half written."""
        half = self.times * self.moved_bytes / 2.0
        return Work(
            flops=self.times * self.flops, vector_flops=self.times * self.vector_flops, input_bytes=half,
            write_bytes=half,
        )  # fmt: skip

    @property
    def out_elems(self) -> Num:
        """Elements of all inputs."""
        return sum(self.gives, start=0.0)

    @property
    def out_parts(self) -> dict[str, Num]:
        """Elements of each input."""
        return {str(i): size for i, size in enumerate(self.gives)}

    def cut(self, ways: Num) -> DoubledBackward:
        """Not cut, as the operation is not."""
        return self


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class KernelGradient(DoubledBackward):
    """The gradient of a convolution's kernels: as many multiplications as the convolution has."""

    ends: ClassVar[bool] = True

    times: float = 1.0
    launches: Num = 1.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AccumulatedGradient(Add):
    """Adds to the gradient of a value that every turn of a repeat reads, such as an encoder's result."""

    ends: ClassVar[bool] = True

    @property
    def in_elems(self) -> Num | None:
        """What is added; the sum lies where it is."""
        return self.elems
