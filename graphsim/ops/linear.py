"""GEMMs with weights. m rows (tokens), k inputs, n outputs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from graphsim.ops.base import BF16, Op, OpType, Sharding, Work
from graphsim.ops.formats import Format
from graphsim.ops.saved import Saved
from graphsim.units import Num


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A named slice of a GEMM's outputs, `width` wide, cut at most `units` ways (0 = no limit)."""

    name: str
    width: Num
    units: Num = 0.0

    def cut(self, ways: Num) -> Part:
        """The slice of one of `ways` devices."""
        return replace(self, width=self.width / limited(ways, self.units))


def limited(ways: Num, units: Num) -> Num:
    """The actual number of shards of `units` units over `ways` devices: heads are replicated beyond their number.

    units: 0 = no limit
    """
    return np.where(np.greater(units, 0.0), np.minimum(ways, units), ways)[()]


def stored_bytes(weights: Format, n: Num, k: Num) -> Num:
    """Bytes of n x k weights in a format, with its overhead per output and per input."""
    further = n * weights.per_output if weights.per_output else 0.0
    return n * k * weights.bytes + further + (k * weights.per_input if weights.per_input else 0.0)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Gemm(Op):
    """x[m, k] @ w[k, n] with resident weights.

    split: how tensor parallelism cuts the weights: COLUMN cuts n, ROW cuts k, REPLICATED keeps a copy
    units: at most this many ways (heads, for attention projections); 0 = no limit
    bias: whether it has a bias of n elements, which is replicated under a ROW split
    shared: the weights, but not the bias, belong to another op (tied embeddings) and are not counted again
    module: path as PEFT sees it, `{}` standing for the layer's index; "" where no adapter can go
    linear: PEFT's all-linear reaches it (nn.Linear and Conv1D but the output head)
    tags: names of the LoRA document's targeting table that mean this op
    head: whether its results are the model's logits
    bare: whether the weights are a parameter of their block rather than a module; of PEFT's methods only LoRA targets
        these
    pack: engines launch the Gemms of one pack as one kernel of this name
    parts: named slices of the outputs (natively fused or packed projections); their widths add up to n
    quantised: whether its input comes quantised from the kernel ahead, for weights that ask for it
    """

    op_type: ClassVar[OpType] = OpType.GEMM
    family: ClassVar[str] = "gemm"
    factor: ClassVar[bool] = False
    """Whether its weights are a factor of an adapter."""
    overridden: ClassVar[bool] = False
    """Whether an adapter's GEMM may run in its place."""

    m: Num
    n: Num
    k: Num
    split: Sharding = Sharding.REPLICATED
    units: Num = 0.0
    bias: bool = False
    shared: bool = False
    weights: Format = BF16
    module: str = ""
    linear: bool = True
    head: bool = False
    bare: bool = False
    tags: tuple[str, ...] = ()
    pack: str = ""
    parts: tuple[Part, ...] = ()
    quantised: bool = False

    def work(self) -> Work:
        """flops = 2mnk; reads w and x, writes y. No work if n or k is 0."""
        live = np.minimum(self.n * self.k, 1.0)
        act = self.activations.bytes
        return Work(
            flops=2.0 * self.m * self.n * self.k,
            weight_bytes=self.n * self.k * self.weights.bytes * np.minimum(self.m, 1.0),
            input_bytes=self.m * self.k * act * live,
            write_bytes=self.m * self.n * act * live,
        )

    @property
    def placement(self) -> Sharding:
        """As the weights are cut."""
        return self.split

    @property
    def matrix_format(self) -> str:
        """The number format whose peak applies."""
        return self.weights.compute or self.activations.compute

    @property
    def each(self) -> tuple[Num, Num, Num]:
        """n and k of each plain GEMM that it runs as, and the bytes that all move beyond one weight and input each."""
        return self.n, self.k, 0.0

    @property
    def parameters(self) -> Num:
        """nk unless the weights are shared, and n for a bias, which never is."""
        return (0.0 if self.shared else self.n * self.k) + (self.n if self.bias else 0.0)

    @property
    def weight_storage_bytes(self) -> Num:
        """Weights in their format, bias in the activations'."""
        weights = 0.0 if self.shared else stored_bytes(self.weights, self.n, self.k)
        return weights + (self.n * self.activations.bytes if self.bias else 0.0)

    @property
    def saved(self) -> Saved:
        """Nothing: dx = dy w^T needs only the weights."""
        return Saved()

    @property
    def saved_for_weights(self) -> Saved:
        """x, for dw = x^T dy; not for a bias, whose gradient is a sum over dy."""
        return Saved(inputs=self.m * self.k * self.activations.bytes)

    @property
    def out_rows(self) -> Num | None:
        """m."""
        return self.m

    @property
    def out_elems(self) -> Num:
        """mn."""
        return self.m * self.n

    @property
    def out_parts(self) -> dict[str, Num]:
        """Elements of each named slice."""
        return {part.name: self.m * part.width for part in self.parts}

    @property
    def in_elems(self) -> Num | None:
        """mk."""
        return self.m * self.k

    def cut(self, ways: Num) -> Gemm:
        """n / ways for a COLUMN split, slice by slice; k / ways for a ROW split."""
        if self.split is Sharding.COLUMN and self.parts:
            parts = tuple(part.cut(ways) for part in self.parts)
            return replace(self, parts=parts, n=sum((part.width for part in parts), start=0.0))
        if self.split is Sharding.COLUMN:
            return replace(self, n=self.n / limited(ways, self.units))
        if self.split is Sharding.ROW:
            return replace(self, k=self.k / limited(ways, self.units))
        return self


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class HeadGemm(Gemm):
    """A GEMM of its own for each of `heads` heads: m rows of k inputs, n outputs, in one batched kernel."""

    family: ClassVar[str] = "batched_gemm"

    heads: Num

    @property
    def placement(self) -> Sharding:
        """Each device works on its own heads."""
        return Sharding.DEALT

    def work(self) -> Work:
        """flops = 2 heads mnk; reads every head's weights once."""
        act = self.activations.bytes * self.m * self.heads
        return Work(
            flops=2.0 * self.heads * self.m * self.n * self.k,
            weight_bytes=self.heads * self.n * self.k * self.weights.bytes * np.minimum(self.m, 1.0),
            input_bytes=act * self.k,
            write_bytes=act * self.n,
        )

    @property
    def parameters(self) -> Num:
        """nk for each head."""
        return self.heads * self.n * self.k

    @property
    def weight_storage_bytes(self) -> Num:
        """Bytes in the weights' format."""
        return self.heads * stored_bytes(self.weights, self.n, self.k)

    @property
    def out_elems(self) -> Num:
        """mn for each head."""
        return self.heads * self.m * self.n

    @property
    def in_elems(self) -> Num | None:
        """mk for each head."""
        return self.heads * self.m * self.k

    @property
    def saved_for_weights(self) -> Saved:
        """x of each head."""
        return Saved(inputs=self.heads * self.m * self.k * self.activations.bytes)

    @property
    def each(self) -> tuple[Num, Num, Num]:
        """One over the outputs of all heads; every head beyond the first has its own input."""
        return self.heads * self.n, self.k, np.maximum(self.heads - 1.0, 0.0) * self.m * self.k * self.activations.bytes

    def cut(self, ways: Num) -> HeadGemm:
        """Heads are distributed."""
        return replace(self, heads=self.heads / ways)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Embedding(Op):
    """A table look-up of `tokens` rows of `width` in a table of `entries`.

    Tensor parallelism cuts the entries (Megatron-LM, arXiv 1909.08053, section 3); each rank's result is partial.
    weights: the format of a table that is not stored in the activations'
    shared: the table belongs to another op and is not counted again
    parameter: the path of a table that is no module, by which checkpoints name it and adapters do not
    """

    op_type: ClassVar[OpType] = OpType.EMBEDDING
    sharding: ClassVar[Sharding] = Sharding.VOCAB
    linear: ClassVar[bool] = False
    tags: ClassVar[tuple[str, ...]] = ()
    family: ClassVar[str] = "elementwise"

    tokens: Num
    entries: Num
    width: Num
    whole: bool = False
    shared: bool = False
    module: str = ""
    weights: Format | None = None
    parameter: str = ""

    def work(self) -> Work:
        """Reads and writes the looked-up rows only."""
        moved = self.tokens * self.width * self.activations.bytes
        read = moved if self.weights is None else self.tokens * self.width * self.weights.bytes
        return Work(input_bytes=read, write_bytes=moved)

    @property
    def placement(self) -> Sharding:
        """Cut over entries; position tables are not."""
        return Sharding.REPLICATED if self.whole else Sharding.VOCAB

    @property
    def parameters(self) -> Num:
        """The whole table; none where it is shared."""
        return 0.0 if self.shared else self.entries * self.width

    @property
    def weight_storage_bytes(self) -> Num:
        """The table in its format."""
        if self.weights is None:
            return self.parameters * self.activations.bytes
        return stored_bytes(self.weights, self.entries, self.width)

    @property
    def saved(self) -> Saved:
        """Nothing: token ids have no gradient."""
        return Saved()

    @property
    def saved_for_weights(self) -> Saved:
        """Token ids of 8 bytes."""
        return Saved(own=8.0 * self.tokens)

    @property
    def out_rows(self) -> Num | None:
        """One per token."""
        return self.tokens

    @property
    def out_elems(self) -> Num:
        """One row per token."""
        return self.tokens * self.width

    def cut(self, ways: Num) -> Embedding:
        """Cut over entries; position tables (`whole`) are not."""
        return self if self.whole else replace(self, entries=self.entries / ways)
