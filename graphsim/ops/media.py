"""Operations between a tower and the language model: patches, pooling, and insertion into the prompt."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from graphsim.ops.base import Op, OpType, Sharding, Work
from graphsim.ops.elementwise import TakeRows
from graphsim.ops.linear import Gemm
from graphsim.ops.saved import Saved
from graphsim.units import Num


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Patches(Op):
    """`rows` patches (or frames of sound) of `width` values, as the processor leaves them on the device."""

    launched: ClassVar[bool] = False
    sharding: ClassVar[Sharding] = Sharding.WHOLE

    rows: Num
    width: Num

    @property
    def out_rows(self) -> Num | None:
        """rows."""
        return self.rows

    @property
    def out_elems(self) -> Num:
        """rows times width."""
        return self.rows * self.width

    @property
    def saved(self) -> Saved:
        """Nothing: the consumer of the value saves it."""
        return Saved()

    def cut(self, ways: Num) -> Patches:
        """Not cut: every device has the whole picture."""
        return self


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pool(TakeRows):
    """`rows` rows of `width`, each the mean or a weighted sum of `shared` rows."""

    op_type: ClassVar[OpType] = OpType.ELEMENTWISE

    shared: Num

    def work(self) -> Work:
        """Reads the pooled rows, writes the results; one step per element read."""
        left = self.rows * self.width
        return Work(
            vector_flops=left * self.shared, input_bytes=left * self.shared * self.activations.bytes,
            write_bytes=left * self.activations.bytes,
        )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Conv2d(Gemm):
    """A dense convolution over a grid of rows: m rows out of n channels each, k = taps times the input channels.

    An implicit GEMM: rows are read once, not once for each tap. stride: input rows per output row
    """

    op_type: ClassVar[OpType] = OpType.CONVOLUTION

    taps: Num
    stride: Num = 1.0

    def work(self) -> Work:
        """flops = 2mnk; reads every input row and the filters once."""
        item = self.activations.bytes
        return Work(
            flops=2.0 * self.m * self.n * self.k,
            weight_bytes=self.n * self.k * self.weights.bytes * np.minimum(self.m, 1.0),
            input_bytes=self.in_elems * item,
            write_bytes=self.m * self.n * item,
        )

    @property
    def in_elems(self) -> Num:
        """All input rows."""
        return self.m * self.stride * self.k / np.maximum(self.taps, 1.0)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DepthwiseConv(Op):
    """A convolution of each of `channels` channels by itself, `taps` taps over a sequence or a grid of rows.

    rows: number of output rows
    stride: input values per output value
    parameter: path of the weights, which no adapter reaches
    """

    op_type: ClassVar[OpType] = OpType.CONVOLUTION
    sharding: ClassVar[Sharding] = Sharding.WHOLE
    family: ClassVar[str] = "elementwise"

    rows: Num
    channels: Num
    taps: Num
    stride: Num = 1.0
    bias: bool = True
    parameter: str = ""

    def work(self) -> Work:
        """Reads and writes every value once."""
        item = self.activations.bytes
        return Work(
            vector_flops=2.0 * self.out_elems * self.taps,
            weight_bytes=self.parameters * item * np.minimum(self.rows, 1.0),
            input_bytes=self.out_elems * self.stride * item,
            write_bytes=self.out_elems * item,
        )

    @property
    def parameters(self) -> Num:
        """One filter per channel, and a bias."""
        return self.channels * (self.taps + (1.0 if self.bias else 0.0))

    @property
    def out_rows(self) -> Num | None:
        """rows."""
        return self.rows

    @property
    def out_elems(self) -> Num:
        """One value per row and channel."""
        return self.rows * self.channels

    @property
    def in_elems(self) -> Num | None:
        """All input rows."""
        return self.out_elems * self.stride

    @property
    def saved(self) -> Saved:
        """Nothing: the gradient of a convolution's input needs only the filters."""
        return Saved()

    @property
    def saved_for_weights(self) -> Saved:
        """Its input."""
        return Saved(inputs=self.out_elems * self.stride * self.activations.bytes)

    def cut(self, ways: Num) -> DepthwiseConv:
        """Not cut: every device has all rows."""
        return self


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PlaceRows(Op):
    """`rows` rows of `width` written over their places among a prompt's `tokens` (transformers' masked_scatter).

    adds: further values of as many rows that are added to hidden states deeper in the model
    """

    op_type: ClassVar[OpType] = OpType.COPY
    sharding: ClassVar[Sharding] = Sharding.WHOLE
    family: ClassVar[str] = "elementwise"

    tokens: Num
    rows: Num
    width: Num
    adds: Num = 0.0

    def work(self) -> Work:
        """Rows are read and written; each further value is read, added to what is there and written."""
        moved = self.rows * self.width * self.activations.bytes
        return Work(
            vector_flops=self.adds * self.rows * self.width, input_bytes=moved * (1.0 + 2.0 * self.adds),
            write_bytes=moved * (1.0 + self.adds),
        )  # fmt: skip

    @property
    def out_rows(self) -> Num | None:
        """tokens."""
        return self.tokens

    @property
    def out_elems(self) -> Num:
        """The prompt's values."""
        return self.tokens * self.width

    @property
    def saved(self) -> Saved:
        """Nothing: gradients go back to where the rows came from."""
        return Saved()

    def cut(self, ways: Num) -> PlaceRows:
        """Not cut: it works on whole rows."""
        return self

    def cut_tokens(self, ways: Num) -> PlaceRows:
        """A share of the tokens and of the rows among them."""
        return replace(self, tokens=self.tokens / ways, rows=self.rows / ways)
