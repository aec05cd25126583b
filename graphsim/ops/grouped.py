"""A GEMM whose inputs and outputs form separate groups: a block-diagonal weight."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from graphsim.ops.base import Sharding, Work
from graphsim.ops.linear import Gemm, limited
from graphsim.ops.saved import Saved
from graphsim.units import Num


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class GroupedGemm(Gemm):
    """n outputs in `groups` groups, each of which reads k inputs of its own (DeepSeek-V4's output projection)."""

    groups: Num

    @property
    def placement(self) -> Sharding:
        """Each device works on its own groups."""
        return Sharding.DEALT

    def work(self) -> Work:
        """flops = 2mnk, since every output depends only on the inputs of its group; reads all groups' inputs once."""
        act = self.activations.bytes * self.m
        live = np.minimum(self.n * self.k, 1.0)
        return Work(
            flops=2.0 * self.m * self.n * self.k,
            weight_bytes=self.n * self.k * self.weights.bytes * np.minimum(self.m, 1.0),
            input_bytes=act * self.k * self.groups * live,
            write_bytes=act * self.n * live,
        )

    @property
    def in_elems(self) -> Num | None:
        """mk for each group."""
        return self.groups * self.m * self.k

    @property
    def saved_for_weights(self) -> Saved:
        """x of each group."""
        return Saved(inputs=self.groups * self.m * self.k * self.activations.bytes)

    @property
    def each(self) -> tuple[Num, Num, Num]:
        """Every group beyond the first has its own input."""
        return self.n, self.k, np.maximum(self.groups - 1.0, 0.0) * self.m * self.k * self.activations.bytes

    def cut(self, ways: Num) -> GroupedGemm:
        """Groups are distributed with their outputs."""
        ways = limited(ways, self.units)
        return replace(self, n=self.n / ways, groups=self.groups / ways)
