"""Encoders of images that a language-model step does not run: their weights lie in memory, no rows pass them.

They are built like any layers but on zero rows, so they cost memory and adapters reach them, and no time.
"""

from __future__ import annotations

from dataclasses import dataclass

import networkx as nx

from graphsim.graph import add
from graphsim.models.layers.base import Layer, Projection, Scope
from graphsim.models.layers.norm import VECTORS
from graphsim.ops import Embedding, Input, Norm, Repeat


@dataclass(frozen=True, slots=True, kw_only=True)
class IdleEncoder(Layer):
    """A vision transformer and its projection into the language model.

    linears: (name, outputs, inputs) below a layer's module; norms: their widths
    ends: (name, outputs, inputs) of the projections before and behind the layers; tables: sizes of bare weights
    """

    layers: int
    module: str
    linears: tuple[tuple[str, int, int], ...]
    norms: tuple[int, ...]
    norm: str = "rms"
    bias: bool = False
    ends: tuple[tuple[str, int, int], ...] = ()
    tables: tuple[int, ...] = ()

    def build(self, scope: Scope, x: str = "") -> str:
        """The encoder's weights as operations on no rows."""
        body = nx.DiGraph()
        add(body, "input", Input(role="input", elems=0.0))
        inner = Scope(
            graph=body,
            phase=scope.phase,
            precision=scope.precision,
            hidden=scope.hidden,
            prefix=f"{self.module}.{{}}.",
        )
        for i, width in enumerate(self.norms):
            inner.add(f"norm_{i}", Norm(rows=0.0, width=width, vectors=VECTORS[self.norm]), [])
        for name, n, k in self.linears:
            inner.linear(Projection(name=name, n=n, k=k, bias=self.bias, quantised=False), "input", m=0.0)
        out = scope.add("vision_tower", Repeat(role="vision_tower", body=body, times=self.layers), [])
        for name, n, k in self.ends:
            out = scope.linear(Projection(name=name, n=n, k=k, quantised=False), out, m=0.0)
        for i, size in enumerate(self.tables):
            out = scope.add(f"vision_table_{i}", Embedding(tokens=0.0, entries=size, width=1, whole=True), [])
        return out
