"""The kernels that engines launch for adapters: fill, shrink and expand over all slices of a packed linear.

Kernels run over tiles of one adapter's tokens; some engines also launch tiles without tokens, which are
not free. Punica, arXiv 2310.18547, section 4 (SGMV, BGMV); vLLM 0.33, `vllm/lora/ops/triton_ops`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from graphsim.errors import GraphError
from graphsim.ops.base import BF16, Op, OpType, Sharding, Work
from graphsim.ops.formats import Format
from graphsim.ops.linear import Part
from graphsim.ops.saved import Saved
from graphsim.symbolic.questions import may_be_nonzero
from graphsim.units import Num


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LoraKernel(Op):
    """One kernel of an engine for all adapters of a step; no adapter, no kernel.

    launches: 0 without an adapter, else 1
    tiles, empty_tiles: thread blocks with tokens, and thread blocks without tokens
    tile_clocks, empty_tile_clocks: clocks of one core that each takes
    chain_clocks: from start to end of one tile, a dependent chain of steps: no kernel takes less
    uncaptured_s: host time in seconds of its launch if the step is not a captured graph
    """

    op_type: ClassVar[OpType] = OpType.LORA_KERNEL
    tiled: ClassVar[bool] = True

    adapter: bool = True
    launches: Num = 1.0
    tiles: Num = 0.0
    empty_tiles: Num = 0.0
    tile_clocks: Num = 0.0
    empty_tile_clocks: float = 0.0
    chain_clocks: Num = 0.0
    uncaptured_s: Num = 0.0

    @property
    def buffers(self) -> tuple[Num, ...]:
        """Elements of each tensor that holds one adapter's weights."""
        return (self.parameters,) if may_be_nonzero(self.parameters) else ()

    @property
    def tile_core_clocks(self) -> Num:
        """Clocks of one core that all tiles take together; divided by the cores' clocks per second, a time."""
        return self.tiles * self.tile_clocks

    @property
    def longest_clocks(self) -> Num:
        """The least clock cycles of the kernel, however many cores there are; none without tiles."""
        return self.chain_clocks * np.minimum(self.tiles, 1.0)

    @property
    def empty_core_clocks(self) -> Num:
        """The same for tiles without tokens."""
        return self.empty_tiles * self.empty_tile_clocks

    def cut(self, ways: Num) -> LoraKernel:
        """Raise GraphError: the factors of the kernel are sharded before it is created."""
        raise GraphError(f"{type(self).__name__} is made of one device's shard of the factors and is not sharded again")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LoraFill(LoraKernel):
    """Clears the intermediate result, `elems` elements, before a shrink that adds to it."""

    elems: Num

    def work(self) -> Work:
        """Written once."""
        return Work(write_bytes=self.elems * self.activations.bytes)

    @property
    def saved(self) -> Saved:
        """Nothing: it only clears memory."""
        return Saved()

    @property
    def out_elems(self) -> Num:
        """The cleared buffer is the shrink's own."""
        return 0.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LoraShrink(LoraKernel):
    """x[m, k] @ A[k, n] with n = the ranks of all slices; the result is in `activations`, x in `inputs`.

    adapters: distinct ones among the rows
    slices: how many of them read x
    """

    op_type: ClassVar[OpType] = OpType.GEMM_LORA_A

    m: Num
    n: Num
    k: Num
    adapters: Num
    slices: float
    inputs: Format = BF16
    weights: Format = BF16

    @property
    def reached(self) -> Num:
        """Factors that its rows reach, each read once."""
        return np.minimum(self.adapters, self.m)

    def work(self) -> Work:
        """flops = 2mnk; reads x once per slice and every present adapter's A once."""
        live = np.minimum(self.n * self.k, 1.0)
        return Work(
            flops=2.0 * self.m * self.n * self.k,
            weight_bytes=self.reached * self.n * self.k * self.weights.bytes,
            input_bytes=self.slices * self.m * self.k * self.inputs.bytes * live,
            write_bytes=self.m * self.n * self.activations.bytes,
        )

    @property
    def matrix_format(self) -> str:
        """Tensor cores multiply in the inputs' format."""
        return self.inputs.compute

    @property
    def parameters(self) -> Num:
        """A of one adapter."""
        return self.n * self.k

    @property
    def adapter_rank(self) -> Num:
        """n."""
        return self.n

    @property
    def saved(self) -> Saved:
        """Nothing: dx = dy A^T asks for the weights only."""
        return Saved()

    @property
    def saved_for_weights(self) -> Saved:
        """x."""
        return Saved(inputs=self.m * self.k * self.inputs.bytes)

    @property
    def buffers(self) -> tuple[Num, ...]:
        """A of each slice."""
        return (self.parameters / self.slices,) * int(self.slices)

    @property
    def weight_storage_bytes(self) -> Num:
        """Memory of one adapter's A."""
        return self.parameters * self.weights.bytes

    @property
    def out_rows(self) -> Num | None:
        """m."""
        return self.m

    @property
    def out_elems(self) -> Num:
        """mn."""
        return self.m * self.n


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LoraExpand(LoraKernel):
    """y[rows, n] += h[rows, k] @ B[k, n], slice by slice, in place; no ADD of its own.

    m, width: rows and columns of the base's result, of which `rows` and `n` are touched
    k: rank of one slice
    slices: how many there are, each with h of its own
    """

    op_type: ClassVar[OpType] = OpType.GEMM_LORA_B
    sharding: ClassVar[Sharding] = Sharding.LINEAR
    joins_base: ClassVar[bool] = True

    m: Num
    width: Num
    rows: Num
    n: Num
    k: Num
    adapters: Num
    slices: float
    hidden: Format = BF16
    weights: Format = BF16
    parts: tuple[Part, ...] = ()

    @property
    def reached(self) -> Num:
        """Factors that its rows reach, each read once."""
        return np.minimum(self.adapters, self.rows)

    def work(self) -> Work:
        """flops = 2 rows n k and one addition each; reads h, every present B, and y; writes y."""
        live = np.minimum(self.n * self.k, 1.0)
        moved = self.rows * self.n * self.activations.bytes * live
        return Work(
            flops=2.0 * self.rows * self.n * self.k,
            vector_flops=self.rows * self.n * live,
            weight_bytes=self.reached * self.n * self.k * self.weights.bytes,
            input_bytes=self.rows * self.slices * self.k * self.hidden.bytes + moved,
            write_bytes=moved,
        )

    @property
    def matrix_format(self) -> str:
        """Tensor cores multiply in the activations' format."""
        return self.activations.compute

    @property
    def parameters(self) -> Num:
        """B of one adapter."""
        return self.n * self.k

    @property
    def adapter_rank(self) -> Num:
        """k."""
        return self.k

    @property
    def saved(self) -> Saved:
        """Nothing: dh = dy B^T asks for the weights only, and the base's gradient is the result's."""
        return Saved()

    @property
    def saved_for_weights(self) -> Saved:
        """h of each slice."""
        return Saved(inputs=self.rows * self.slices * self.k * self.hidden.bytes)

    @property
    def buffers(self) -> tuple[Num, ...]:
        """B of each slice."""
        if len(self.parts) == int(self.slices):
            return tuple(part.width * self.k for part in self.parts)
        return (self.n / self.slices * self.k,) * int(self.slices)

    @property
    def weight_storage_bytes(self) -> Num:
        """Memory of one adapter's B."""
        return self.parameters * self.weights.bytes

    @property
    def out_rows(self) -> Num | None:
        """The base's."""
        return self.m

    @property
    def out_elems(self) -> Num:
        """The base's result."""
        return self.m * self.width

    @property
    def out_parts(self) -> dict[str, Num]:
        """The base's named slices."""
        return {part.name: self.m * part.width for part in self.parts}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LoraLookup(LoraKernel):
    """Rows of an adapter's embedding factor, `rows` of n = rank, out of a table of `vocabulary`.

    extra_elems: what a slot reserves for added tokens
    """

    rows: Num
    n: Num
    vocabulary: Num
    extra_elems: Num = 0.0
    weights: Format = BF16

    def work(self) -> Work:
        """Reads and writes one row of the table per token."""
        moved = self.rows * self.n
        return Work(weight_bytes=moved * self.weights.bytes, write_bytes=moved * self.activations.bytes)

    @property
    def adapter_rank(self) -> Num:
        """n."""
        return self.n

    @property
    def saved(self) -> Saved:
        """Nothing: token ids have no gradient."""
        return Saved()

    @property
    def saved_for_weights(self) -> Saved:
        """Token ids of 8 bytes."""
        return Saved(own=8.0 * self.rows)

    @property
    def buffers(self) -> tuple[Num, ...]:
        """The table, and three tensors for added tokens."""
        return (self.vocabulary * self.n, *[self.extra_elems / 3.0] * 3)

    @property
    def parameters(self) -> Num:
        """The table and what is reserved for added tokens."""
        return self.vocabulary * self.n + self.extra_elems

    @property
    def weight_storage_bytes(self) -> Num:
        """Memory of one adapter's table."""
        return self.parameters * self.weights.bytes

    @property
    def out_elems(self) -> Num:
        """One row of the rank per token."""
        return self.rows * self.n
