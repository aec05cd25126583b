"""Weights of 4-bit block formats are widened ahead of products with many rows, as bitsandbytes does."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import networkx as nx

from graphsim.graph import Pass, Rule, Stage, Step, Value
from graphsim.ops import Gemm, LoraGemm, Op
from graphsim.ops.lora_variants import Dequantise
from graphsim.units import Num

WIDENED = ("nf4", "nf4_dq")
"""Formats that have no matrix units of their own, nor kernels for many rows (bitsandbytes 0.50, `gemm_4bit`)."""

FUSED_TOKENS = 64.0
"""Rows up to which one kernel does both on an H100 where 64-wide column blocks fill it three times over; bitsandbytes
0.50 goes to 48, 32 and 16 with fewer of them, to 128 … 16 on an A100, 256 … 8 on an L40S, 32 … 0 on a B200."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WidenWeights(Pass):
    """A DEQUANTISE node in front of every product with such weights; no work up to `fused_tokens` rows."""

    stage: ClassVar[Stage] = "sharded"

    fused_tokens: Num = FUSED_TOKENS

    def rule(self, graph: nx.DiGraph) -> Rule:
        """The widened weight is one more input of the product."""

        def rule(name: str, op: Op, inputs: list[Value]) -> Iterator[Step]:
            if isinstance(op, Gemm) and not isinstance(op, LoraGemm) and op.weights.name in WIDENED:
                widened = Dequantise(
                    role=f"{op.role}.dequantise", m=op.m, n=op.n, k=op.k, fused_tokens=self.fused_tokens,
                    activations=op.activations, layer=op.layer,
                )  # fmt: skip
                yield f"{name}.dequantise", widened, []
                inputs = [*inputs, Value(f"{name}.dequantise")]
            yield name, op, inputs

        return rule
