"""Kernels of a framework's modules: those in addition to an operation's main kernel, and those of adapters."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from graphsim.ops.base import AdapterPart, Op, OpType, Work
from graphsim.ops.elementwise import Elementwise
from graphsim.ops.lora_variants import DoraNorm
from graphsim.ops.saved import Saved
from graphsim.units import Num


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ModuleSteps(Op):
    """The further kernels of a module: casts, copies and element-wise steps that write their results to memory.

    elems: values that they work on
    moved_bytes: read and written for each of them, half and half
    launches: how many kernels they are
    """

    op_type: ClassVar[OpType] = OpType.ELEMENTWISE
    family: ClassVar[str] = "elementwise"

    elems: Num
    moved_bytes: Num
    launches: Num = 1.0

    def work(self) -> Work:
        """Half of the bytes are read, half written; an elementary operation for each element and kernel."""
        half = self.elems * self.moved_bytes / 2.0
        return Work(vector_flops=self.elems * self.launches, input_bytes=half, write_bytes=half)

    @property
    def out_elems(self) -> Num:
        """No value flows: the results belong to the module."""
        return 0.0

    @property
    def idle(self) -> bool:
        """No: the operation that these steps belong to decides that; `launches` states their number."""
        return False

    @property
    def saved(self) -> Saved:
        """Nothing beyond what the operation itself keeps."""
        return Saved()

    def cut(self, ways: Num) -> ModuleSteps:
        """An equal share of the elements."""
        return replace(self, elems=self.elems / ways)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ModuleScale(Elementwise):
    """Multiplies the result of an adapter's factors by alpha / r, in `launches` kernels, one for each adapter."""

    adapter_part: ClassVar[AdapterPart] = AdapterPart.ADDITION

    adapter: bool = True
    launches: Num = 1.0

    def work(self) -> Work:
        """Work of an elementwise operation; without a kernel there is none."""
        return Elementwise.work(self) * np.minimum(self.launches, 1.0)


SECTOR, CACHE_SPEED = 32.0, 5.0
"""The least bytes that a GPU reads if neighbouring threads read different rows (CUDA C++ Best Practices Guide,
"Strided Accesses"); the adjacent rows are read next and come from the cache, whose rate is taken to be five
times the memory's, as `cost/families/elementwise.py` does."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ModuleNorm(DoraNorm):
    """DoRA's norm kernel by kernel, as PEFT 0.21 runs it (`tuners/lora/dora.py`, DoraLinearLayer.forward).

    In the factors' format: the identity is made (k²) and read, B A comes from it (nk), is scaled (2 nk) and added to W
    (3 nk), of which the norm is taken (nk). W in fewer bytes is copied to that format first (2 nk). B A is the
    transpose of the factors' result, so the sum reads it across rows. GEMMs in fp32 run on the ordinary units, which
    is PyTorch's default (`torch.backends.cuda.matmul.allow_tf32 = False`).
    copies: adapters of the batch, one after another
    """

    copies: Num = 1.0

    @property
    def casts(self) -> float:
        """1 where W is copied to the factors' format, else 0."""
        return float(self.factors.bytes > self.activations.bytes)

    def work(self) -> Work:
        """flops = 2 k² r + 2 k r n, three per weight, of every adapter."""
        live = np.minimum(self.rank, 1.0) * self.copies
        weight, eye, wide = self.n * self.k * live, self.k * self.k * live, self.factors.bytes
        product = 2.0 * self.k * self.rank * (self.k + self.n) * self.copies
        passes = 6.0 + 2.0 * self.casts
        across = (SECTOR - wide) / CACHE_SPEED
        half = (weight * (passes * wide + across) + eye * 2.0 * wide) / 2.0
        return Work(
            flops=product * (1.0 - self.casts),
            vector_flops=3.0 * weight + product * self.casts,
            weight_bytes=weight * self.weights.bytes + self.rank * (self.k + self.n) * wide * self.copies,
            input_bytes=half,
            write_bytes=half,
        )
