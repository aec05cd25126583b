"""A repeated use of a layer: the same operations with the weights of its first use."""

from __future__ import annotations

from dataclasses import dataclass, replace

from graphsim.models.layers.base import Layer, Scope
from graphsim.ops import Gemm, Norm, Op


@dataclass(frozen=True, slots=True, kw_only=True)
class Replicated(Layer):
    """layer: whose weights it uses, a decoder layer of linears and norms."""

    layer: Layer

    def build(self, scope: Scope, x: str) -> str:
        """The layer's operations, which own no weights."""
        before = set(scope.graph)
        result = self.layer.build(scope, x)
        for name in set(scope.graph) - before:
            scope.graph.nodes[name]["op"] = _sharing(scope.graph.nodes[name]["op"])
        return result


def _sharing(op: Op) -> Op:
    if isinstance(op, Gemm):
        return replace(op, shared=True)
    return replace(op, reused=True) if isinstance(op, Norm) else op
