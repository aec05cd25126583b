"""A gated convolution over the grid of a tower's rows, which LFM3-VL uses instead of attention."""

from __future__ import annotations

from dataclasses import dataclass

from graphsim.graph import Value
from graphsim.models.layers.base import Layer, Projection, Scope
from graphsim.ops import Activation, DepthwiseConv, Part, Sharding


@dataclass(frozen=True, slots=True, kw_only=True)
class GatedConvolution(Layer):
    """in -> (gate * value) -> `side` x `side` taps over each channel -> gate -> out, all as wide as the rows.

    transformers 5.24, `models/lfm3_vl/modeling_lfm3_vl.py`, `Lfm3VlVisionShortConv`
    """

    side: int
    module: str = "conv"

    def build(self, scope: Scope, x: str) -> str:
        """Rows -> rows."""
        width, elems = int(scope.hidden), scope.tokens * scope.hidden
        parts = tuple(Part(name=name, width=width) for name in ("in_gate", "out_gate", "value"))
        first = Projection(
            name=f"{self.module}.in_proj", n=3 * width, k=width, quantised=False, parts=parts,
            split=Sharding.REPLICATED,
        )  # fmt: skip
        joint = scope.linear(first, x)
        x = scope.add("gated", Activation(elems=elems, reads=2.0, steps=1.0), [Value(joint, ("in_gate", "value"))])
        x = scope.add(
            "taps", DepthwiseConv(rows=scope.tokens, channels=width, taps=float(self.side**2), bias=False), [x]
        )
        x = scope.add("gated_out", Activation(elems=elems, reads=2.0, steps=1.0), [x, Value(joint, ("out_gate",))])
        return scope.linear(Projection(name=f"{self.module}.out_proj", n=width, k=width, quantised=False), x)
