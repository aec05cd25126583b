"""Normalisation of the residual stream."""

from __future__ import annotations

from dataclasses import dataclass

from graphsim.graph import Value
from graphsim.models.layers.base import Layer, Scope
from graphsim.ops import Norm
from graphsim.units import Num

VECTORS = {"rms": 1, "layer": 2, "layer_no_bias": 1, "rms_no_weight": 0, "layer_no_weight": 0}
"""Learned vectors per kind of norm: RMSNorm has a gain, LayerNorm a gain and a bias."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NormLayer(Layer):
    """A norm over rows of `width` (the hidden size if 0); `name` is its module below the layer."""

    name: str
    kind: str = "rms"
    width: Num = 0

    def build(self, scope: Scope, x: str | Value) -> str:
        """One norm of every token."""
        norm = Norm(
            rows=scope.tokens,
            width=self.width or scope.hidden,
            vectors=VECTORS[self.kind],
            module=f"{scope.prefix}{self.name}",
        )
        return scope.add(self.name.rsplit(".", 1)[-1], norm, [x])
