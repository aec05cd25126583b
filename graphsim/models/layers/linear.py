"""A single linear layer as a part of a block, and a bias on the result of a part."""

from __future__ import annotations

from dataclasses import dataclass

from graphsim.models.layers.base import Layer, Projection, Scope
from graphsim.ops import Activation


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


@dataclass(frozen=True, slots=True, kw_only=True)
class BiasedLayer(Layer):
    """A layer whose result gets a learned vector added, which is not a linear's own bias; `name` is for its node."""

    layer: Layer
    name: str

    def build(self, scope: Scope, x: str) -> str:
        """The layer, then the sum."""
        added = Activation(elems=scope.tokens * scope.hidden, steps=1.0, learned=scope.hidden)
        return scope.add(self.name, added, [self.layer.build(scope, x)])
