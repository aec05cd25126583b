"""Norms over rows, and the exchange between devices that each hold a slice of every row.

vLLM 0.33, `model_executor/layers/mamba/mamba_mixer2.py`, Mixer2RMSNormGated, and `linear_attn.py`,
MiniMaxText01RMSNormTP: a device normalises its own slice; where fewer groups than devices share the statistics, the
sums of squares are all-reduced in fp32.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from graphsim.errors import GraphError
from graphsim.ops.base import BF16, Op, OpType, Work
from graphsim.ops.formats import FORMATS, Format
from graphsim.ops.linear import limited
from graphsim.ops.saved import Saved
from graphsim.units import Num

SUMS = FORMATS["fp32"]
"""The format of sums of squares."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Norm(Op):
    """Normalises `rows` rows of `width`; `vectors` learned vectors (RMSNorm 1, LayerNorm with bias 2, none 0).

    local: a cut value is normalised where it lies: each row lies on one device (per-head norms of queries and keys), or
        each device has a slice of every row
    groups: of slices of a row, each with a mean of its own; 0: rows are not sliced. With fewer groups than devices,
        these sum their squares first
    units: the most shards that the value allows (heads); 0 = no limit
    reused: the learned vectors are another norm's and are not counted again
    own: whether each head has its own learned vectors, which are sharded with the heads
    sums: complete sums of squares that are an additional input
    """

    op_type: ClassVar[OpType] = OpType.NORM
    family: ClassVar[str] = "elementwise"

    rows: Num
    width: Num
    vectors: Num = 1.0
    local: bool = False
    groups: int = 0
    own: bool = False
    sums: Num = 0.0
    units: Num = 0.0
    module: str = ""
    reused: bool = False

    def work(self) -> Work:
        """Reads the rows and the learned vectors, writes the rows; about four steps per element."""
        moved = self.rows * self.width * self.activations.bytes
        return Work(
            vector_flops=4.0 * self.rows * self.width,
            weight_bytes=self.vectors * self.width * self.activations.bytes * np.minimum(np.ceil(self.rows), 1.0),
            input_bytes=moved + SUMS.bytes * np.minimum(self.sums, self.rows),
            write_bytes=moved,
        )

    @property
    def parameters(self) -> Num:
        """The learned vectors."""
        return 0.0 if self.reused else self.vectors * self.width

    @property
    def out_elems(self) -> Num:
        """rows times width."""
        return self.rows * self.width

    @property
    def in_elems(self) -> Num | None:
        """rows times width, and the sums of squares."""
        return self.rows * self.width + self.sums

    @property
    def saved(self) -> Saved:
        """x and the reciprocal of each row's deviation in 4 bytes, as an RMSNorm that computes in fp32 keeps them."""
        return Saved(own=4.0 * self.rows * (self.width + 1.0))

    @property
    def saved_for_weights(self) -> Saved:
        """The normalised x, narrowed to the activations' format."""
        learned = np.minimum(self.vectors, 1.0)
        return Saved(own=learned * self.rows * self.width * self.activations.bytes)

    def cut(self, ways: Num) -> Norm:
        """A share of each row and of the learned vectors, where rows are sliced; else a share of the rows."""
        if self.groups:
            return replace(self, width=self.width / ways)
        ways = limited(ways, self.units)
        return replace(self, rows=self.rows / ways, vectors=self.vectors / (ways if self.own else 1.0))

    def cut_tokens(self, ways: Num) -> Norm:
        """A share of the rows; every device keeps the learned vectors."""
        return replace(self, rows=self.rows / ways)

    def shared(self, ways: Num) -> bool:
        """Whether a group of columns spans several of `ways` devices."""
        return bool(self.groups and np.any(np.greater(ways, self.groups)))

    def squares(self, ways: Num) -> tuple[SquareSum, Num]:
        """The sum of squares of each of `ways` devices, and the devices per group; nothing if no group is shared."""
        sharing = ways / np.minimum(ways, self.groups)
        live = np.minimum(np.ceil(sharing - 1.0), 1.0)
        summed = SquareSum(
            role=f"{self.role}.square_sum", rows=self.rows * live, width=self.width / ways, inputs=self.activations,
            activations=SUMS, launches=live, layer=self.layer,
        )  # fmt: skip
        return summed, sharing


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SquareSum(Op):
    """The sum of squares of each of `rows` rows of `width`: a device's part of a norm's denominator."""

    op_type: ClassVar[OpType] = OpType.NORM
    family: ClassVar[str] = "elementwise"

    rows: Num
    width: Num
    inputs: Format = BF16
    launches: Num = 1.0

    def work(self) -> Work:
        """Reads the rows, writes one sum of each; a product and a sum per element."""
        elems = self.rows * self.width
        return Work(
            vector_flops=2.0 * elems, input_bytes=elems * self.inputs.bytes,
            write_bytes=self.rows * self.activations.bytes,
        )  # fmt: skip

    @property
    def out_elems(self) -> Num:
        """One of each row."""
        return self.rows

    @property
    def out_rows(self) -> Num | None:
        """rows."""
        return self.rows

    @property
    def saved(self) -> Saved:
        """Nothing: the norm that takes the sums keeps the rows."""
        return Saved()

    def cut(self, ways: Num) -> SquareSum:
        """Raise GraphError: it already is one device's share."""
        raise GraphError(f"{type(self).__name__} is made of one device's slices of the rows and is not sharded again")
