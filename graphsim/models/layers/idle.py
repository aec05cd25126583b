"""Weights that a class of transformers has and nothing passes when the model is served."""

from __future__ import annotations

from dataclasses import dataclass

from graphsim.models.layers.base import Layer, Projection, Scope
from graphsim.ops import Embedding, Join


@dataclass(frozen=True, slots=True, kw_only=True)
class Idle(Layer):
    """Linear layers that adapters reach, and `weights` further values, on no rows."""

    linears: tuple[Projection, ...] = ()
    weights: int = 0

    def build(self, scope: Scope, x: str) -> str:
        """The weights, beside the value `x`."""
        held = [scope.linear(linear, x, m=0.0) for linear in self.linears]
        if self.weights:
            table = Embedding(tokens=0.0, entries=self.weights, width=1, whole=True)
            held.append(scope.add("idle_weights", table, []))
        return scope.add("idle", Join(elems=0.0), held)
