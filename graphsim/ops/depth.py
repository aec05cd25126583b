"""Attention residuals: a part reads a mixture of the sums that earlier blocks of layers left (arXiv 2603.15031).

vLLM 0.33, `models/kimi_k3/nvidia/ops/attn_res.py`: one kernel adds the last result, mixes and norms.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from graphsim.ops.base import Op, OpType, Sharding, Work
from graphsim.ops.saved import Saved
from graphsim.units import Num


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DepthOp(Op):
    """Base class: `tokens` rows, `slots` values of `width` elements each, the running sum and a sum per block."""

    op_type: ClassVar[OpType] = OpType.ELEMENTWISE
    sharding: ClassVar[Sharding] = Sharding.WHOLE

    tokens: Num
    slots: Num
    width: Num

    @property
    def row(self) -> Num:
        """Elements of one value of all tokens."""
        return self.tokens * self.width

    @property
    def out_elems(self) -> Num:
        """One value of all tokens."""
        return self.row

    @property
    def out_rows(self) -> Num | None:
        """One per token."""
        return self.tokens

    def cut(self, ways: Num) -> DepthOp:
        """Not cut: a token's values are weighed by all of their elements."""
        return self


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StartSums(DepthOp):
    """The embedding as the first running sum; the blocks' slots are empty, so no data is moved."""

    launched: ClassVar[bool] = False

    @property
    def out_elems(self) -> Num:
        """All values."""
        return self.slots * self.row

    @property
    def in_elems(self) -> Num | None:
        """The embedding."""
        return self.row

    @property
    def saved(self) -> Saved:
        """Nothing: the consumer of the value saves it."""
        return Saved()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MixSums(DepthOp):
    """A mixture of the running sum and of `blocks` sums, by a softmax over their scores: of each a norm and a dot
    product with a learned vector.
    """

    blocks: Num

    @property
    def sources(self) -> Num:
        """Values that are mixed."""
        return self.blocks + 1.0

    def work(self) -> Work:
        """A sum of squares, a dot product with the vector, and the weighted sum: six steps for each element."""
        act = self.activations.bytes
        return Work(
            vector_flops=6.0 * self.sources * self.row,
            weight_bytes=self.parameters * act * np.minimum(self.tokens, 1.0),
            input_bytes=self.sources * self.row * act,
            write_bytes=self.row * act,
        )

    @property
    def parameters(self) -> Num:
        """The norm's vector and the projection's."""
        return 2.0 * self.width

    @property
    def out_elems(self) -> Num:
        """One value."""
        return self.row

    @property
    def in_elems(self) -> Num | None:
        """All values, of which some may be empty yet."""
        return self.slots * self.row

    @property
    def saved(self) -> Saved:
        """Its inputs, and a weight of each in fp32."""
        return Saved(inputs=self.sources * self.row * self.activations.bytes, own=4.0 * self.tokens * self.sources)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AddToSum(DepthOp):
    """A part's result added to the running sum. closes: the sum is stored as a block's sum, and the result starts the
    next one.
    """

    closes: bool = False

    def work(self) -> Work:
        """One addition; or the old sum is copied and replaced by the result."""
        act = self.activations.bytes
        return Work(
            vector_flops=0.0 if self.closes else self.row,
            input_bytes=2.0 * self.row * act,
            write_bytes=(2.0 if self.closes else 1.0) * self.row * act,
        )

    @property
    def out_elems(self) -> Num:
        """All values."""
        return self.slots * self.row

    @property
    def in_elems(self) -> Num | None:
        """The result, and all values."""
        return (self.slots + 1.0) * self.row

    @property
    def saved(self) -> Saved:
        """Nothing: a sum's gradient is its inputs'."""
        return Saved()
