"""Training's operations around an adapter's factors: casts and dropout before A, scaling and sum after B."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from graphsim.ops.base import BF16, Op, OpType, Sharding, Work
from graphsim.ops.formats import Format
from graphsim.ops.gradients.gradient import Gradient
from graphsim.ops.saved import Saved
from graphsim.units import Num


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LoraInput(Op):
    """An adapter's own copy of a linear's input: cast to the factors' format, with dropout.

    activations: the format of the copy; source: that of the input
    dropout: whether a mask is drawn
    """

    op_type: ClassVar[OpType] = OpType.ELEMENTWISE
    sharding: ClassVar[Sharding] = Sharding.LINEAR
    family: ClassVar[str] = "elementwise"
    follows: ClassVar[bool] = True

    adapter: bool = True
    elems: Num
    source: Format = BF16
    dropout: bool = False

    def work(self) -> Work:
        """Reads the input, writes the copy and the mask, one byte each."""
        mask = self.elems if self.dropout else 0.0
        return Work(
            vector_flops=self.elems * (2.0 if self.dropout else 1.0),
            input_bytes=self.elems * self.source.bytes,
            write_bytes=self.elems * self.activations.bytes + mask,
        )

    @property
    def out_elems(self) -> Num:
        """As many as the input has."""
        return self.elems

    @property
    def saved(self) -> Saved:
        """The mask."""
        return Saved(own=self.elems if self.dropout else 0.0)

    def cut(self, ways: Num) -> LoraInput:
        """An equal share of the elements."""
        return replace(self, elems=self.elems / ways)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LoraInputBackward(Gradient, LoraInput):
    """The gradient of the copy, back in the input's format: activations is that, source the copy's."""

    def work(self) -> Work:
        """Reads the gradient and the mask, writes the gradient."""
        mask = self.elems if self.dropout else 0.0
        return Work(
            vector_flops=self.elems * (2.0 if self.dropout else 1.0),
            input_bytes=self.elems * self.source.bytes + mask,
            write_bytes=self.elems * self.activations.bytes,
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LoraAddBackward(Gradient, Op):
    """The gradient of an adapter's result: the sum's, scaled, in the factors' format: m rows of n."""

    op_type: ClassVar[OpType] = OpType.ADD
    sharding: ClassVar[Sharding] = Sharding.LINEAR
    family: ClassVar[str] = "elementwise"
    follows: ClassVar[bool] = True

    adapter: bool = True
    m: Num
    n: Num
    source: Format = BF16

    def work(self) -> Work:
        """Reads the gradient, writes it scaled."""
        elems = self.m * self.n
        return Work(
            vector_flops=elems, input_bytes=elems * self.source.bytes, write_bytes=elems * self.activations.bytes
        )

    @property
    def out_elems(self) -> Num:
        """mn."""
        return self.m * self.n

    @property
    def out_rows(self) -> Num | None:
        """m."""
        return self.m

    def cut(self, ways: Num) -> LoraAddBackward:
        """A share of the rows or outputs, as `follows` says: that of the gradient that comes in."""
        return replace(self, n=self.n / ways)

    def cut_tokens(self, ways: Num) -> LoraAddBackward:
        """A share of the rows."""
        return replace(self, m=self.m / ways)
