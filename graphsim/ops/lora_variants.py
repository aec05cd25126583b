"""Operations that variants add to a step: DoRA's weight norm, VeRA's vectors, QA-LoRA's pooling, QLoRA's
dequantisation.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from graphsim.ops.base import BF16, AdapterPart, Op, OpType, Sharding, Work
from graphsim.ops.collectives import AllGather, AllReduce
from graphsim.ops.elementwise import Elementwise
from graphsim.ops.formats import Format
from graphsim.ops.linear import Part, limited
from graphsim.ops.saved import Saved
from graphsim.symbolic.questions import may_be_nonzero
from graphsim.units import Num


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DoraNorm(Op):
    """m / ||W + s B A|| of each output, in every forward pass, independent of the tokens (DoRA, arXiv 2402.09353, 4.3).

    As PEFT 0.21 does it (`tuners/lora/dora.py`): the GEMM B A comes from running the factors on the identity, then
    W + s B A is written, and its norm taken. The temporary of the weight's shape lives until then.
    Devices that cut the base over its inputs sum their squares, in every forward. One factor that is sharded over
    ranks or outputs is gathered first (Megatron-Bridge, `peft/dora.py`, DoRALinear._get_weight_norm, which leaves out
    that sum).
    weights, factors: formats of the base and of A and B
    cut_elems: elements of the factor that is gathered; 0 where each device has what its slice of W takes
    whole: whether every device scales all outputs, though the base is sharded over them
    """

    op_type: ClassVar[OpType] = OpType.LORA_KERNEL
    constant: ClassVar[bool] = True
    adapter_part: ClassVar[AdapterPart] = AdapterPart.NORM

    adapter: bool = True
    n: Num
    k: Num
    rank: Num
    split: Sharding = Sharding.REPLICATED
    units: Num = 0.0
    weights: Format = BF16
    factors: Format = BF16
    cut_elems: Num = 0.0
    whole: bool = False
    launches: Num = 6.0

    def work(self) -> Work:
        """flops = 2 k² r + 2 k r n, three per weight; moves W once, and 16-bit temporaries of its shape four times."""
        live = np.minimum(self.rank, 1.0)
        weight, eye = self.n * self.k * live, self.k * self.k * live
        return Work(
            flops=2.0 * self.k * self.rank * (self.k + self.n),
            vector_flops=3.0 * weight,
            weight_bytes=weight * self.weights.bytes + self.rank * (self.k + self.n) * 2.0,
            input_bytes=2.0 * (2.0 * weight + eye),
            write_bytes=2.0 * (2.0 * weight + eye),
        )

    @property
    def matrix_format(self) -> str:
        """The activations'."""
        return self.activations.compute

    @property
    def parameters(self) -> Num:
        """The magnitude of each output."""
        return self.n

    @property
    def weight_storage_bytes(self) -> Num:
        """Magnitudes in the activations' format."""
        return self.n * self.activations.bytes

    @property
    def adapter_rank(self) -> Num:
        """The rank of A and B."""
        return self.rank

    @property
    def buffers(self) -> tuple[Num, ...]:
        """The magnitudes."""
        return (self.n,)

    @property
    def saved(self) -> Saved:
        """Nothing: its inputs are weights."""
        return Saved()

    @property
    def saved_for_weights(self) -> Saved:
        """The identity of k rows, A's GEMM with it, and the norms that magnitudes are divided by."""
        return Saved(own=(self.k * self.k + self.k * self.rank + self.n) * self.factors.bytes)

    @property
    def out_elems(self) -> Num:
        """W + s B A, of which the norm is taken."""
        return self.n * self.k

    def exchanges(self, ways: Num) -> tuple[Op | None, Op | None]:
        """A factor's gather, and the sum of n squares; or the gather of n norms."""
        live = np.minimum(self.rank, 1.0)
        further: dict[str, Any] = {
            "group": ways, "activations": self.factors, "layer": self.layer, "adapter": True, "role": f"{self.role}.sum"
        }  # fmt: skip
        behind: Op | None = None
        if self.split is Sharding.ROW:
            behind = AllReduce(elems=self.n * live, **further)
        elif self.split is Sharding.COLUMN and self.whole:
            behind = AllGather(elems=self.n * live, **further)
        if not may_be_nonzero(self.cut_elems):
            return None, behind
        return AllGather(elems=self.cut_elems * live, **(further | {"role": f"{self.role}.factor"})), behind

    def cut(self, ways: Num) -> DoraNorm:
        """Cut where its base is."""
        ways = limited(ways, self.units)
        if self.split is Sharding.COLUMN:
            return replace(self, n=self.n / ways)
        return replace(self, k=self.k / ways) if self.split is Sharding.ROW else self


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DoraScale(Op):
    """Scales the base's and the adapter's results by the norm: PEFT's five element-wise kernels in addition to the ADD.

    They move nine values per element: (g - 1) y, g y_lora, its scaling, their sum, and the sum with y, less the ADD's.
    factors: format of A and B, and so of y_lora and g
    """

    op_type: ClassVar[OpType] = OpType.ELEMENTWISE
    sharding: ClassVar[Sharding] = Sharding.LINEAR
    joins_base: ClassVar[bool] = True
    adapter_part: ClassVar[AdapterPart] = AdapterPart.NORM

    adapter: bool = True
    m: Num
    n: Num
    rows: Num
    units: Num = 0.0
    parts: tuple[Part, ...] = ()
    factors: Format = BF16
    launches: Num = 4.0

    def work(self) -> Work:
        """Five reads and four writes of every value."""
        moved = self.rows * self.n * self.activations.bytes
        return Work(vector_flops=4.0 * self.rows * self.n, input_bytes=5.0 * moved, write_bytes=4.0 * moved)

    @property
    def out_rows(self) -> Num | None:
        """The base's."""
        return self.m

    @property
    def out_elems(self) -> Num:
        """The base's result."""
        return self.m * self.n

    @property
    def out_parts(self) -> dict[str, Num]:
        """The base's named slices."""
        return {part.name: self.m * part.width for part in self.parts}

    @property
    def saved(self) -> Saved:
        """y and y_lora apart, which the graph has as their sum, and the vectors g - 1 and g."""
        wide = self.factors.bytes
        return Saved(own=self.rows * self.n * (self.activations.bytes + wide) + 2.0 * self.n * wide)

    def cut(self, ways: Num) -> DoraScale:
        """n is cut as the base's outputs are."""
        parts = tuple(part.cut(ways) for part in self.parts)
        n = sum((part.width for part in parts), start=0.0) if parts else self.n / limited(ways, self.units)
        return replace(self, n=n, parts=parts)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class VectorScale(Elementwise):
    """Multiplies each column by a trained number: VeRA's d and b (arXiv 2310.11454, section 3.1); `width` of them."""

    sharding: ClassVar[Sharding] = Sharding.LINEAR

    adapter: bool = True
    width: Num = 0.0
    units: Num = 0.0

    @property
    def parameters(self) -> Num:
        """The vector."""
        return self.width

    @property
    def launches(self) -> Num:
        """No launch where there is nothing to multiply, as at rank 0."""
        return np.greater(self.elems, 0.0) * 1.0

    @property
    def buffers(self) -> tuple[Num, ...]:
        """The vector."""
        return (self.width,)

    @property
    def saved(self) -> Saved:
        """Nothing: dx = v dy asks for the vector only."""
        return Saved()

    @property
    def saved_for_weights(self) -> Saved:
        """Its input."""
        return Saved(inputs=self.elems * self.activations.bytes)

    def cut(self, ways: Num) -> VectorScale:
        """An equal share of the columns."""
        ways = limited(ways, self.units)
        return replace(self, elems=self.elems / ways, width=self.width / ways)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class GroupPool(Op):
    """Averages groups of inputs before A: QA-LoRA, arXiv 2309.14717, section 3.2; `groups` inputs become one."""

    op_type: ClassVar[OpType] = OpType.ELEMENTWISE

    adapter: bool = True
    m: Num
    k: Num
    groups: Num

    def work(self) -> Work:
        """Reads all inputs, writes one value per group."""
        elems = self.m * self.k
        read = elems * self.activations.bytes
        return Work(vector_flops=elems, input_bytes=read, write_bytes=read / self.groups)

    @property
    def out_elems(self) -> Num:
        """One value per group."""
        return self.m * self.k / self.groups

    @property
    def saved(self) -> Saved:
        """Nothing: an average is linear."""
        return Saved()

    def cut(self, ways: Num) -> GroupPool:
        """An equal share of the inputs."""
        return replace(self, k=self.k / ways)
