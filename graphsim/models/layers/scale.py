"""A learned scale of each column, as towers have after attention and MLP (LayerScale, arXiv 2103.17239)."""

from __future__ import annotations

from dataclasses import dataclass

from graphsim.models.layers.base import Layer, Scope
from graphsim.ops import Activation


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale(Layer):
    """Multiplies each row by one learned vector, or by one learned number where `scalar`."""

    name: str
    scalar: bool = False

    def build(self, scope: Scope, x: str) -> str:
        """Rows -> scaled rows."""
        elems = scope.tokens * scope.hidden
        scaled = Activation(elems=elems, steps=1.0, learned=1.0 if self.scalar else scope.hidden)
        return scope.add(self.name.rsplit(".", 1)[-1], scaled, [x])
