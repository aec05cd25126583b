"""The operations that an adapter adds: y = W x + (alpha / r) B (A x).

`adapters` distinct adapters are present in the batch; each has its own weights, so weight traffic grows with their
number while the flops per token do not. A rank of 0 is no work.
Source: LoRA, arXiv 2106.09685, section 4.1; many adapters in one batch: Punica, arXiv 2310.18547, section 4.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, cast

import numpy as np

from graphsim.ops.base import BF16, AdapterPart, Op, OpType, Sharding, Work
from graphsim.ops.formats import Format
from graphsim.ops.linear import Gemm, Part, limited
from graphsim.ops.saved import Saved
from graphsim.units import Num


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LoraGemm(Gemm):
    """A factor of an adapter, applied to `m` rows that spread over `adapters` distinct adapters.

    launches: number of kernels, such as one for each adapter
    frozen: whether training leaves it unchanged; its memory still counts
    blocks: of a block-diagonal factor, which holds and multiplies one in `blocks` of its entries (BD-LoRA); split
        DEALT gives each device the blocks that its inputs meet
    """

    factor: ClassVar[bool] = True

    adapter: bool = True
    adapters: Num = 1.0
    launches: Num = 1.0
    blocks: Num = 1.0
    frozen: bool = False

    def work(self) -> Work:
        """flops = 2mnk; reads every present adapter's factor once; no rows, no work."""
        live = np.minimum(self.n * self.k, 1.0)
        act = self.activations.bytes
        present = np.minimum(self.adapters, self.m)
        return Work(
            flops=2.0 * self.m * self.n * self.k / self.blocks,
            weight_bytes=present * self.n * self.k / self.blocks * self.weights.bytes,
            input_bytes=self.m * self.k * act * live,
            write_bytes=self.m * self.n * act * live,
        )

    @property
    def parameters(self) -> Num:
        """Parameters of one adapter, which are counted separately from the model's own weights."""
        return 0.0 if self.shared else self.n * self.k / self.blocks + (self.n if self.bias else 0.0)

    @property
    def each(self) -> tuple[Num, Num, Num]:
        """Every adapter beyond a call's first has its own factor; an output depends only on the inputs of its block."""
        n, k = self.n, self.k / self.blocks
        further = np.maximum(self.work().weight_bytes - self.launches * n * k * self.weights.bytes, 0.0)
        return n, k, further

    @property
    def trainable_parameters(self) -> Num:
        """All of them, or none."""
        return 0.0 if self.frozen else self.parameters

    @property
    def weight_storage_bytes(self) -> Num:
        """Memory of one adapter's factor."""
        return self.parameters * self.weights.bytes

    @property
    def adapter_rank(self) -> Num:
        """k: the rank is the number of inputs of B and of anything between A and B."""
        return self.k

    @property
    def buffers(self) -> tuple[Num, ...]:
        """One tensor."""
        return (self.parameters,)

    @property
    def saved_for_weights(self) -> Saved:
        """Its input, as a copy of its own where the factor is in a wider format than what flows, as in PEFT."""
        if self.frozen:
            return Saved()
        elems = self.m * self.k
        if self.weights.bytes > self.activations.bytes:
            return Saved(own=elems * self.weights.bytes)
        return Saved(inputs=elems * self.activations.bytes)

    def cut(self, ways: Num) -> LoraGemm:
        """As any GEMM's weights; blocks that are distributed cut n and k at once."""
        if self.split is not Sharding.DEALT:
            return cast("LoraGemm", Gemm.cut(self, ways))
        part = cast("LoraGemm", Gemm.cut(replace(self, split=Sharding.COLUMN), ways))
        return replace(part, split=self.split, k=self.k / ways, blocks=np.maximum(self.blocks / ways, 1.0))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LoraA(LoraGemm):
    """The down projection: k inputs to n = rank."""

    op_type: ClassVar[OpType] = OpType.GEMM_LORA_A

    @property
    def adapter_rank(self) -> Num:
        """n."""
        return self.n

    @property
    def in_elems(self) -> Num | None:
        """Its rows are those of the value that have an adapter, all or a part."""
        return None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LoraB(LoraGemm):
    """The up projection: k = rank to n outputs."""

    op_type: ClassVar[OpType] = OpType.GEMM_LORA_B


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LoraAdd(Op):
    """Adds the adapter's result, `rows` rows of n, to the base's m rows; linear, so partial sums stay partial.

    share: part of each row that this device adds to partial sums
    in_place: whether values with different layouts are added in place, such as slices to partial sums; otherwise both
        are gathered first
    """

    op_type: ClassVar[OpType] = OpType.ADD
    sharding: ClassVar[Sharding] = Sharding.LINEAR
    family: ClassVar[str] = "elementwise"
    joins_base: ClassVar[bool] = True
    adapter_part: ClassVar[AdapterPart] = AdapterPart.ADDITION

    adapter: bool = True
    m: Num
    n: Num
    rows: Num
    units: Num = 0.0
    parts: tuple[Part, ...] = ()
    launches: Num = 1.0
    share: Num = 1.0
    in_place: bool = True

    @property
    def added(self) -> Num:
        """Elements that are added."""
        return self.rows * self.n * self.share

    def work(self) -> Work:
        """Counted as rows * n flops, as the LoRA document does; reads two values, writes one."""
        moved = self.added * self.activations.bytes
        return Work(flops=self.added, input_bytes=2.0 * moved, write_bytes=moved)

    @property
    def matrix_format(self) -> str:
        """The activations'."""
        return self.activations.compute

    @property
    def out_rows(self) -> Num | None:
        """The base's."""
        return self.m

    @property
    def out_elems(self) -> Num:
        """mn: the base's result with the adapter's added in place."""
        return self.m * self.n

    @property
    def out_parts(self) -> dict[str, Num]:
        """The base's named slices."""
        return {part.name: self.m * part.width for part in self.parts}

    @property
    def saved(self) -> Saved:
        """Nothing: each input's gradient is the result's."""
        return Saved()

    def cut(self, ways: Num) -> LoraAdd:
        """n is cut as the base's outputs are."""
        parts = tuple(part.cut(ways) for part in self.parts)
        n = sum((part.width for part in parts), start=0.0) if parts else self.n / limited(ways, self.units)
        return replace(self, n=n, parts=parts)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LoraMerge(Op):
    """W' = W + (alpha / r) B A, once, before a GEMM with k inputs and n outputs; independent of tokens.

    copies: weights of that shape that are merged, one for each expert
    weights, factors: formats of the base and of A and B
    scratch_passes: times that a 16-bit temporary of the weight's shape is read or written on the way; a base that is
        stored in fewer bits is widened, added to, and narrowed again, which takes four more
    """

    op_type: ClassVar[OpType] = OpType.LORA_MERGE
    constant: ClassVar[bool] = True

    adapter: bool = True
    n: Num
    k: Num
    rank: Num
    copies: Num = 1.0
    split: Sharding = Sharding.REPLICATED
    units: Num = 0.0
    once: bool = True
    weights: Format = BF16
    factors: Format = BF16
    scratch_passes: Num = 0.0

    def work(self) -> Work:
        """flops = 2nrk; reads W, A and B, writes W'; plus temporaries."""
        live = np.minimum(self.rank, 1.0) * self.copies
        weight = self.n * self.k * self.weights.bytes * live
        factors = self.rank * (self.n + self.k) * self.factors.bytes * self.copies
        narrow = 4.0 if self.weights.bytes < BF16.bytes else 0.0
        scratch = (self.scratch_passes + narrow) * self.n * self.k * BF16.bytes * live / 2.0
        return Work(
            flops=2.0 * self.copies * self.n * self.rank * self.k,
            weight_bytes=weight + factors,
            input_bytes=scratch,
            write_bytes=weight + scratch,
        )

    @property
    def matrix_format(self) -> str:
        """Factors are multiplied in the adapter's format."""
        return self.factors.compute

    @property
    def trainable_parameters(self) -> Num:
        """Parameters of A and B, which are merged here and stored nowhere else."""
        return self.copies * self.rank * (self.n + self.k)

    @property
    def adapter_rank(self) -> Num:
        """The rank of A and B."""
        return self.rank

    @property
    def saved(self) -> Saved:
        """Nothing: it runs before the first step."""
        return Saved()

    @property
    def out_elems(self) -> Num:
        """The merged weight is used in place; nothing flows along the edge."""
        return 0.0

    def cut(self, ways: Num) -> LoraMerge:
        """Cut where its base is cut: B with a column-parallel base, A with a row-parallel one."""
        ways = limited(ways, self.units)
        if self.split is Sharding.COLUMN:
            return replace(self, n=self.n / ways)
        if self.split is Sharding.ROW:
            return replace(self, k=self.k / ways)
        return self
