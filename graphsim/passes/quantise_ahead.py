"""Quantisation of a GEMM's input by the kernel before it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import networkx as nx
import numpy as np

from graphsim.graph import Pass, Rule, Step, Value, inputs_of
from graphsim.ops import Activation, Gemm, Norm, Op


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantiseAhead(Pass):
    """GEMMs in fp8 with one scale take inputs that the norm or activation before them has quantised.

    vLLM 0.33, `compilation/passes/fusion`: RMSNormQuantFusionPass, ActivationQuantFusionPass. The saved bytes between
    the kernels are left out.
    """

    def rule(self, graph: nx.DiGraph) -> Rule:
        """Mark the GEMM as such."""

        def rule(name: str, op: Op, inputs: list[Value]) -> Iterator[Step]:
            if isinstance(op, Gemm) and not op.adapter and op.weights.gemm == "fp8" and _is_made(graph, name):
                op = replace(op, quantised=True)
            yield name, op, inputs

        return rule


def _is_made(graph: nx.DiGraph, name: str) -> bool:
    """Whether a node takes one value in every step, of an RMSNorm or of an MLP's activation; a merge runs once."""
    sources = [op for value in inputs_of(graph, name) if not (op := graph.nodes[value.node]["op"]).once]
    if len(sources) != 1:
        return False
    return isinstance(sources[0], Activation) or (
        isinstance(sources[0], Norm) and bool(np.all(np.less(sources[0].vectors, 2.0)))
    )
