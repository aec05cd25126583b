"""GEMMs whose weights a router chooses per token, sharded over devices like any other GEMM."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from graphsim.ops.base import OpType, Work
from graphsim.ops.experts import expected_experts
from graphsim.ops.linear import Gemm
from graphsim.units import Num


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RoutedGemm(Gemm):
    """`m` rows, `chosen` for each of `tokens` tokens, through the weights [n, k] of `of` experts, in the tokens' order.

    Experts are not distributed: every device holds a slice of each, as heads or inputs are cut.
    """

    op_type: ClassVar[OpType] = OpType.GEMM
    family: ClassVar[str] = ""

    tokens: Num
    of: int
    chosen: int

    def work(self) -> Work:
        """flops = 2mnk; reads the weights of the experts that some token reaches, and the rows; writes the results."""
        act = self.activations.bytes
        hit = expected_experts(self.tokens, self.of, self.chosen)
        return Work(
            flops=2.0 * self.m * self.n * self.k,
            weight_bytes=hit * self.n * self.k * self.weights.bytes,
            input_bytes=self.m * self.k * act,
            write_bytes=self.m * self.n * act,
        )

    @property
    def parameters(self) -> Num:
        """nk for each expert."""
        return self.of * self.n * self.k

    @property
    def weight_storage_bytes(self) -> Num:
        """Weights in their format."""
        return self.parameters * self.weights.bytes

    @property
    def in_elems(self) -> Num | None:
        """Not checked: a token's row goes to several experts without being copied, and the router's choices are inputs
        too.
        """
        return None
