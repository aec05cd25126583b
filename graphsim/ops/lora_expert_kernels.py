"""The kernels that engines launch for adapters on experts: sort rows into blocks of one adapter and expert, shrink,
expand.

A block of rows is padded to the kernel's own height, so one pair of an adapter and an expert takes at least one block
however few rows it has. vLLM 0.33, `vllm/lora/ops/triton_ops/fused_moe_lora_op.py`; SGLang 0.5.23,
`srt/lora/lora_moe_runners.py` and the virtual experts of `sglang/kernels/ops/moe/virtual_experts.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from graphsim.ops.base import AdapterPart, Sharding, Work
from graphsim.ops.lora_kernels import LoraExpand, LoraKernel, LoraShrink
from graphsim.ops.saved import Saved
from graphsim.units import Num


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ExpertLoraSort(LoraKernel):
    """Sorts the routed `rows` by adapter and expert into blocks, `padded` rows in all."""

    rows: Num
    padded: Num

    def work(self) -> Work:
        """Reads the experts chosen and writes sorted row numbers, of 4 bytes each."""
        return Work(input_bytes=4.0 * self.rows, write_bytes=4.0 * self.padded * np.minimum(self.rows, 1.0))

    @property
    def saved(self) -> Saved:
        """Nothing: row indices have no gradient."""
        return Saved()

    @property
    def out_elems(self) -> Num:
        """The order of rows is the kernels' own."""
        return 0.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ExpertLoraShrink(LoraShrink):
    """x[m, k] @ A[k, n] of the adapter and expert of each row.

    pairs: of an adapter and an expert that rows reach, adapters alone where their experts share A
    held: elements of A that the device holds of one adapter
    """

    pairs: Num
    held: Num

    @property
    def reached(self) -> Num:
        """The pairs."""
        return self.pairs

    @property
    def parameters(self) -> Num:
        """A of all experts, of one adapter."""
        return self.held


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ExpertLoraExpand(LoraExpand):
    """y[rows, n] += h[rows, k] @ B[k, n] of the adapter and expert of each row.

    pairs, held: as of the shrink
    in_place: whether y is the base's result; else it is what another kernel will add
    """

    pairs: Num
    held: Num
    in_place: bool = True

    def work(self) -> Work:
        """Work as of a dense expand if it adds in place; otherwise the base's result is not read."""
        work = LoraExpand.work(self)
        return work if self.in_place else replace(work, input_bytes=work.input_bytes - work.write_bytes)

    @property
    def reached(self) -> Num:
        """The pairs."""
        return self.pairs

    @property
    def parameters(self) -> Num:
        """B of all experts, of one adapter."""
        return self.held

    @property
    def buffers(self) -> tuple[Num, ...]:
        """B of each slice."""
        return (self.held / self.slices,) * int(self.slices)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ExpertLoraTaken(LoraKernel):
    """`rows` rows of n that an expand wrote in addition to the base's m rows, which the experts' next kernel adds.

    Not a kernel of its own: only the extra reads.
    """

    sharding: ClassVar[Sharding] = Sharding.LINEAR
    joins_base: ClassVar[bool] = True
    adapter_part: ClassVar[AdapterPart] = AdapterPart.ADDITION

    m: Num
    n: Num
    rows: Num
    launches: Num = 0.0

    def work(self) -> Work:
        """Reads the rows, one addition each."""
        moved = self.rows * self.n
        return Work(vector_flops=moved, input_bytes=moved * self.activations.bytes)

    @property
    def saved(self) -> Saved:
        """Nothing: a sum is linear."""
        return Saved()

    @property
    def out_rows(self) -> Num | None:
        """The base's."""
        return self.m

    @property
    def out_elems(self) -> Num:
        """The base's result."""
        return self.m * self.n
