"""Weights of PEFT's methods other than LoRA, and what is computed from them in every forward pass.

What is computed, and how often, follows PEFT 0.21 (`tuners/*/layer.py`), method by method in `graphsim/lora/variants`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, cast

import numpy as np

from graphsim.ops.base import BF16, Op, OpType, Sharding, Work
from graphsim.ops.formats import Format
from graphsim.ops.linear import limited
from graphsim.ops.lora import LoraMerge
from graphsim.ops.saved import Saved
from graphsim.units import Num


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class HeldWeights(Op):
    """Resident weights of an adapter that are used in place: a bank, a copy of a module, frozen factors.

    elems: how many
    frozen: whether training leaves them as they are
    stored_bytes: memory that they take in addition to the model's own weights; none for its own biases
    factors: whether they are in the factors' format, which engines may widen
    """

    launched: ClassVar[bool] = False
    constant: ClassVar[bool] = True

    adapter: bool = True
    once: bool = True
    elems: Num
    stored_bytes: Num
    frozen: bool = False
    factors: bool = False

    @property
    def parameters(self) -> Num:
        """All of them."""
        return self.elems

    @property
    def trainable_parameters(self) -> Num:
        """All of them, or none."""
        return 0.0 if self.frozen else self.elems

    @property
    def weight_storage_bytes(self) -> Num:
        """The bytes that they occupy."""
        return self.stored_bytes

    @property
    def buffers(self) -> tuple[Num, ...]:
        """One tensor."""
        return (self.elems,)

    @property
    def saved(self) -> Saved:
        """Nothing: no value flows."""
        return Saved()

    @property
    def out_elems(self) -> Num:
        """Nothing flows along the edge."""
        return 0.0

    def cut(self, ways: Num) -> HeldWeights:
        """Every device holds them whole."""
        return self


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class BuiltWeights(Op):
    """Weights that every forward pass computes from an adapter's parameters, independent of the tokens.

    elems: of what is made, which lives until it is used
    held: parameters that are trained for it
    rank: of the adapter; 0 for no adapter
    copies: distinct adapters in the batch, each of which makes its own
    flops, vector_flops: of matrix units, and elementary steps
    read_elems, write_elems: moved on the way, in `made`
    base_elems: of the model's own weights that are read, in `weights`
    factors: format of the parameters
    launches: kernels for one adapter
    as_factors: whether `made` is the factors' format, which engines may widen
    """

    op_type: ClassVar[OpType] = OpType.LORA_KERNEL
    constant: ClassVar[bool] = True

    adapter: bool = True
    elems: Num
    held: Num
    rank: Num
    copies: Num = 1.0
    flops: Num = 0.0
    vector_flops: Num = 0.0
    read_elems: Num = 0.0
    write_elems: Num = 0.0
    base_elems: Num = 0.0
    split: Sharding = Sharding.REPLICATED
    units: Num = 0.0
    weights: Format = BF16
    factors: Format = BF16
    made: Format = BF16
    as_factors: bool = True
    launches: Num = 1.0

    def work(self) -> Work:
        """The stated work, once for each adapter; the parameters are read as well."""
        live = np.minimum(self.rank, 1.0) * self.copies
        return Work(
            flops=self.flops * live,
            vector_flops=self.vector_flops * live,
            weight_bytes=(self.held * self.factors.bytes + self.base_elems * self.weights.bytes) * live,
            input_bytes=self.read_elems * self.made.bytes * live,
            write_bytes=self.write_elems * self.made.bytes * live,
        )

    @property
    def matrix_format(self) -> str:
        """GEMMs of parameters run in their format."""
        return self.factors.compute

    @property
    def parameters(self) -> Num:
        """What is trained."""
        return self.held

    @property
    def weight_storage_bytes(self) -> Num:
        """Bytes in the parameters' format."""
        return self.held * self.factors.bytes

    @property
    def adapter_rank(self) -> Num:
        """Rank of the adapter."""
        return self.rank

    @property
    def buffers(self) -> tuple[Num, ...]:
        """Seen as one tensor."""
        return (self.held,)

    @property
    def saved(self) -> Saved:
        """Nothing: it takes parameters only."""
        return Saved()

    @property
    def saved_for_weights(self) -> Saved:
        """The computed weights, which the gradients of the parameters need."""
        return Saved(own=self.elems * self.made.bytes)

    @property
    def out_elems(self) -> Num:
        """What is made."""
        return self.elems

    def cut(self, ways: Num) -> BuiltWeights:
        """Each device computes its own slice from parameters that are replicated on every device."""
        if self.split not in (Sharding.COLUMN, Sharding.ROW):
            return self
        ways = limited(ways, self.units)
        names = ("elems", "flops", "vector_flops", "read_elems", "write_elems", "base_elems")
        return replace(self, **{name: getattr(self, name) / ways for name in names})


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MethodMerge(LoraMerge):
    """W' from W and the method's parameters, once: W is read and written.

    held: parameters
    flops, vector_flops: of what is made of them, and of multiplying W by it where it is not added
    read_elems, write_elems: moved on the way, in the factors' format
    """

    held: Num
    flops: Num = 0.0
    vector_flops: Num = 0.0
    read_elems: Num = 0.0
    write_elems: Num = 0.0

    def work(self) -> Work:
        """As for a merge without its two factors, and what is computed."""
        live, plain, each = np.minimum(self.rank, 1.0) * self.copies, LoraMerge.work(self), self.factors.bytes
        return Work(
            flops=self.flops * live,
            vector_flops=self.vector_flops * live,
            weight_bytes=(self.n * self.k * self.weights.bytes + self.held * each) * live,
            input_bytes=plain.input_bytes + self.read_elems * each * live,
            write_bytes=plain.write_bytes + self.write_elems * each * live,
        )

    @property
    def trainable_parameters(self) -> Num:
        """The parameters, which are merged here and stored nowhere else."""
        return self.copies * self.held

    def cut(self, ways: Num) -> MethodMerge:
        """Cut where its base is; parameters are not."""
        part = limited(ways, self.units) if self.split in (Sharding.COLUMN, Sharding.ROW) else 1.0
        names = ("flops", "vector_flops", "read_elems", "write_elems")
        share = {name: getattr(self, name) / part for name in names}
        return cast("MethodMerge", replace(LoraMerge.cut(self, ways), **share))
