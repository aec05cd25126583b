"""An entry that is one of graphsim's own layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from graphsim.graph import Value
from graphsim.models.layers.base import Layer, Scope
from graphsim.models.layers.custom.node import Node
from graphsim.ops import Join
from graphsim.units import Num


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerNode(Node):
    """One of graphsim's own layers as a node."""

    layer: Layer

    def build(self, scope: Scope, inputs: Sequence[Value], step: Mapping[str, Num]) -> str:
        """All the layer's operations."""
        (value,) = self.together(scope, inputs)
        if value.parts:
            value = Value(scope.add(f"{self.name}.join", Join(elems=scope.elems_of(value)), [value]))
        return self.layer.build(scope, value.node)
