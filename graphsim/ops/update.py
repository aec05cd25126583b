"""The end of a training step: gradient clipping and weight update."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from graphsim.ops.base import Op, OpType, Work
from graphsim.ops.saved import Saved
from graphsim.units import Num

TENSORS_PER_KERNEL = 36.0
"""Tensors that one multi-tensor kernel of four lists takes: `depth_to_max_tensors` of PyTorch's MultiTensorApply.cuh is
{110, 64, 48, 36, 30} (from memory, not read again)."""
ELEMENTS_PER_KERNEL = 320.0 * 65536.0
"""Elements that one takes: 320 blocks of 65,536, `depth_to_max_blocks` and `kChunkSize` of the same file."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class UpdateWeights(Op):
    """A pass over the trained weights of a device, their gradients, or their optimizer states.

    elems: trained weights
    moved_bytes: read and written for each
    tensors: number of tensors
    kernels: launches for each group of tensors that one kernel processes
    tensor_kernels: launches for each tensor, for optimizers that process one tensor after another
    called_s: host seconds beyond launching, which waits for decompositions
    matrix_flops: FLOPs of GEMMs per weight (Muon's orthogonalisation, GaLore's projection)
    decomposed_flops: FLOPs of singular value decompositions, run by vector units; their peak rate gives a lower bound
        of the time
    """

    op_type: ClassVar[OpType] = OpType.ELEMENTWISE
    family: ClassVar[str] = "elementwise"

    elems: Num
    moved_bytes: Num
    tensors: Num = 1.0
    kernels: Num = 1.0
    tensor_kernels: Num = 0.0
    called_s: Num = 0.0
    matrix_flops: Num = 0.0
    decomposed_flops: Num = 0.0

    def work(self) -> Work:
        """Half of the bytes are read, half written; about eight elementary operations for each weight."""
        half = self.elems * self.moved_bytes / 2.0
        return Work(
            flops=self.elems * self.matrix_flops, vector_flops=self.elems * (8.0 + self.decomposed_flops),
            input_bytes=half, write_bytes=half,
        )  # fmt: skip

    @property
    def launches(self) -> Num:
        """Kernels of each group of tensors, or of elements where these are more groups, and of each tensor."""
        groups = np.maximum(self.tensors / TENSORS_PER_KERNEL, self.elems / ELEMENTS_PER_KERNEL)
        one_by_one = self.tensor_kernels * self.tensors
        return (self.kernels * np.ceil(groups) + one_by_one) * np.minimum(self.elems, 1.0)

    @property
    def out_elems(self) -> Num:
        """No value flows: weights are updated in place."""
        return 0.0

    @property
    def idle(self) -> bool:
        """No: `launches` states the number of kernels."""
        return False

    @property
    def saved(self) -> Saved:
        """Nothing: an update has no gradient."""
        return Saved()

    def cut(self, ways: Num) -> UpdateWeights:
        """An equal share of the weights."""
        return replace(self, elems=self.elems / ways)
