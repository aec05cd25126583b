"""What PEFT's methods other than LoRA do to a linear's input or result: scale columns, rotate blocks, convolve.

A step changes the rows that have an adapter and passes all rows through. Formulas: IA3, arXiv 2205.05638, section 3.3;
OFT, arXiv 2306.07280; BOFT, arXiv 2311.06243; RoAd, arXiv 2409.00119; C3A, arXiv 2407.19342.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from graphsim.ops.base import BF16, Op, OpType, Sharding, Work
from graphsim.ops.formats import FORMATS, Format
from graphsim.ops.linear import Part, limited
from graphsim.ops.lora import LoraB
from graphsim.ops.saved import Saved
from graphsim.units import Num

COMPLEX = FORMATS["fp32"].bytes * 2.0
"""Bytes of a complex number, in PyTorch's Fourier transforms."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ColumnScale(Op):
    """Multiplies the columns of `rows` of `m` rows by trained numbers, `vectors` of them for each of n columns.

    steps: elementary operations per value, which is read and written `passes` times, in `launches` kernels
    whole: whether a sharded value is gathered before it, because the linear after it needs it complete
    weights: format of the numbers
    """

    op_type: ClassVar[OpType] = OpType.ELEMENTWISE

    adapter: bool = True
    m: Num
    n: Num
    rows: Num
    vectors: Num = 1.0
    steps: Num = 1.0
    passes: Num = 1.0
    units: Num = 0.0
    parts: tuple[Part, ...] = ()
    whole: bool = False
    weights: Format = BF16
    launches: Num = 1.0

    def work(self) -> Work:
        """Each pass reads and writes every value of the adapted rows."""
        elems = self.rows * self.n
        moved = elems * self.passes * self.activations.bytes
        return Work(
            vector_flops=elems * self.steps,
            weight_bytes=self.parameters * self.weights.bytes * np.minimum(self.rows, 1.0),
            input_bytes=moved,
            write_bytes=moved,
        )

    @property
    def placement(self) -> Sharding:
        """A product by columns commutes with sums over devices."""
        return Sharding.WHOLE if self.whole else Sharding.LINEAR

    @property
    def parameters(self) -> Num:
        """The trained numbers."""
        return self.vectors * self.n

    @property
    def weight_storage_bytes(self) -> Num:
        """Bytes of the weights in their format."""
        return self.parameters * self.weights.bytes

    @property
    def buffers(self) -> tuple[Num, ...]:
        """Seen as one tensor."""
        return (self.parameters,)

    @property
    def out_rows(self) -> Num | None:
        """All rows."""
        return self.m

    @property
    def out_elems(self) -> Num:
        """As many as the input has."""
        return self.m * self.n

    @property
    def out_parts(self) -> dict[str, Num]:
        """The named slices of the value."""
        return {part.name: self.m * part.width for part in self.parts}

    @property
    def saved(self) -> Saved:
        """Nothing: dx = v dy needs the numbers only."""
        return Saved()

    @property
    def saved_for_weights(self) -> Saved:
        """Its input."""
        return Saved(inputs=self.rows * self.n * np.minimum(self.vectors, 1.0) * self.activations.bytes)

    def cut(self, ways: Num) -> ColumnScale:
        """n is cut as the value is."""
        parts = tuple(part.cut(ways) for part in self.parts)
        n = sum((part.width for part in parts), start=0.0) if parts else self.n / limited(ways, self.units)
        return replace(self, n=n, parts=parts)

    def cut_tokens(self, ways: Num) -> ColumnScale:
        """A share of the rows."""
        return replace(self, m=self.m / ways, rows=self.rows / ways)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ResultScale(ColumnScale):
    """The same for a linear's result, which it then replaces."""

    joins_base: ClassVar[bool] = True


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RotateInput(Op):
    """Multiplies each row's blocks of `block` values by a matrix each, before a linear.

    inputs, width: values per row of the input and of the result, of `rows` of `m` rows
    dense: one block holds the whole row, so that devices that shard it sum their partial results
    split: of the linear after it
    weights: format of the matrices
    copies: distinct adapters in the batch
    """

    op_type: ClassVar[OpType] = OpType.GEMM_LORA_A

    adapter: bool = True
    m: Num
    inputs: Num
    width: Num
    block: Num
    rows: Num
    dense: bool = False
    split: Sharding = Sharding.REPLICATED
    units: Num = 0.0
    weights: Format = BF16
    copies: Num = 1.0
    launches: Num = 1.0

    def work(self) -> Work:
        """flops = 2 block for each value of the result; reads the matrices once for each adapter."""
        act, live = self.activations.bytes, np.minimum(self.rows, 1.0)
        return Work(
            flops=2.0 * self.rows * self.width * self.block,
            weight_bytes=np.minimum(self.copies, self.rows) * self.width * self.block * self.weights.bytes * live,
            input_bytes=self.rows * self.inputs * act,
            write_bytes=self.rows * self.width * act,
        )

    @property
    def placement(self) -> Sharding:
        """Unsharded before a linear that needs its whole input; otherwise sharded by blocks."""
        if self.split is not Sharding.ROW:
            return Sharding.WHOLE
        return Sharding.ROW if self.dense else Sharding.LINEAR

    @property
    def matrix_format(self) -> str:
        """Format of the matrices."""
        return self.weights.compute

    @property
    def out_rows(self) -> Num | None:
        """All rows."""
        return self.m

    @property
    def out_elems(self) -> Num:
        """All rows, at the width of the result."""
        return self.m * self.width

    @property
    def in_elems(self) -> Num | None:
        """All rows, at the width of the input."""
        return self.m * self.inputs

    @property
    def saved(self) -> Saved:
        """Its input, for the gradient of the matrices, which are no parameters themselves."""
        return Saved(inputs=self.rows * self.inputs * self.activations.bytes)

    def cut(self, ways: Num) -> RotateInput:
        """The share of one device: a part of the inputs of a dense matrix; else whole blocks, or a part of one."""
        ways = limited(ways, self.units)
        if self.dense:
            return replace(self, inputs=self.inputs / ways, block=self.block / ways)
        width = self.width / ways
        return replace(self, inputs=self.inputs / ways, width=width, block=np.minimum(self.block, width))

    def cut_tokens(self, ways: Num) -> RotateInput:
        """A share of the rows."""
        return replace(self, m=self.m / ways, rows=self.rows / ways)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class WideGemm(LoraB):
    """A GEMM with the linear's dimensions, over those rows of its input that have an adapter."""

    @property
    def in_elems(self) -> Num | None:
        """Its rows are those of the value that have an adapter, all or a part."""
        return None

    @property
    def adapter_rank(self) -> Num:
        """The rank with which its weights are computed, not its number of inputs."""
        return 0.0 if self.shared else self.blocks


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CirculantGemm(WideGemm):
    """Multiplies by circulant blocks of `blocks` x `blocks`, each defined by one row, with Fourier transforms.

    PEFT 0.21, `tuners/c3a/utils.py`: x is transformed, multiplied frequency by frequency, and transformed back, all of
    it complex numbers of 8 bytes. A transform of N values takes 5 N log2 N steps.
    """

    def work(self) -> Work:
        """flops = 8 mnk / block of complex products; both transforms read and write their values."""
        turns = 5.0 * np.log2(np.maximum(self.blocks, 1.0))
        values = self.m * (self.n + self.k) * np.minimum(self.n * self.k, 1.0)
        present = np.minimum(self.adapters, self.m)
        kernel = present * self.n * self.k / self.blocks
        return Work(
            flops=8.0 * self.m * self.n * self.k / self.blocks,
            vector_flops=turns * (values + kernel),
            weight_bytes=kernel * self.weights.bytes,
            input_bytes=(2.0 * values + 2.0 * kernel) * COMPLEX,
            write_bytes=(2.0 * values + kernel) * COMPLEX,
        )
