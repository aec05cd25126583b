"""GEMMs of weights in bitsandbytes' formats, with its additional kernels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import networkx as nx

from graphsim.graph import Pass, Rule, Stage, Step, Value
from graphsim.ops import Gemm, Op
from graphsim.ops.precision import Precision
from graphsim.units import Num

FOUR_BIT = ("nf4", "nf4_dq")
EIGHT_BIT = "llm_int8"

FUSED_TOKENS = 1.0
"""Rows up to which one kernel reads 4-bit weights itself: one, in every release with published measurements (0.45,
`matmul_4bit`: `gemv_4bit` for a single row). Release 0.50 has kernels for 8 to 256 rows, by device (pull request 1949).
"""


CALL_S = 8.4e-6
"""Host time of each of its calls where the engine's own steps are captured graphs: as in the `peft` profile."""


def serves(precision: Precision) -> bool:
    """Whether any weights are in a format of bitsandbytes."""
    return any(f.name in (*FOUR_BIT, EIGHT_BIT) for f in precision.of_weights)


def runs_eagerly(precision: Precision) -> bool:
    """Whether no graph of the step can be captured: LLM.int8() reads the outliers back from the device in every GEMM.

    vLLM, `config.py`, `_verify_bnb_config`: bitsandbytes in 8 bits falls back to the eager mode.
    """
    return any(f.name == EIGHT_BIT for f in precision.of_weights)


@dataclass(frozen=True, slots=True, kw_only=True)
class BesideProducts(Pass):
    """Adds a node before every GEMM with such weights, for the kernels that run in addition.

    fused_tokens: rows up to which a kernel reads 4-bit weights directly
    nested: whether doubly quantised scales are dequantised in every GEMM rather than once at load
    """

    stage: ClassVar[Stage] = "sharded"

    fused_tokens: Num = FUSED_TOKENS
    nested: bool = True

    def rule(self, graph: nx.DiGraph) -> Rule:
        """Add it as one more input of the GEMM."""

        def rule(name: str, op: Op, inputs: list[Value]) -> Iterator[Step]:
            if isinstance(op, Gemm) and not op.factor:
                if op.weights.name in FOUR_BIT:
                    yield f"{name}.dequantise", self._dequantise(op), []
                    inputs = [*inputs, Value(f"{name}.dequantise")]
                elif op.weights.name == EIGHT_BIT:
                    yield f"{name}.outliers", _outliers(op), inputs
                    inputs = [*inputs, Value(f"{name}.outliers")]
            yield name, op, inputs

        return rule

    def _dequantise(self, op: Gemm) -> Op:
        from graphsim.ops.bitsandbytes import Dequantise

        return Dequantise(
            role=f"{op.role}.dequantise", m=op.m, n=op.n, k=op.k, fused_tokens=self.fused_tokens,
            nested=self.nested and op.weights.name == "nf4_dq", activations=op.activations, layer=op.layer,
        )  # fmt: skip


def _outliers(op: Gemm) -> Op:
    from graphsim.ops.bitsandbytes import Outliers

    return Outliers(role=f"{op.role}.outliers", m=op.m, n=op.n, k=op.k, activations=op.activations, layer=op.layer)
