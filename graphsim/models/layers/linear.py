"""A single linear layer in the place of a whole part of a block."""

from __future__ import annotations

from dataclasses import dataclass

from graphsim.models.layers.base import Layer, Projection, Scope


@dataclass(frozen=True, slots=True, kw_only=True)
class LinearLayer(Layer):
    """x -> W x, from the residual stream to the residual stream; every device keeps the whole weight."""

    name: str
    bias: bool = False
    tags: tuple[str, ...] = ()

    def build(self, scope: Scope, x: str) -> str:
        """One GEMM."""
        projection = Projection(name=self.name, n=scope.hidden, k=scope.hidden, bias=self.bias, tags=self.tags)
        return scope.linear(projection, x)
