"""Entries without data movement: values from outside and for later blocks, parts and joins of values; and selected
rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from graphsim.files.arithmetic import Expression
from graphsim.graph import Value
from graphsim.models.layers.base import Scope
from graphsim.models.layers.custom.node import Node
from graphsim.ops import Handed, Join, OutsideValue, SomeRows, TakeRows
from graphsim.units import Num


@dataclass(frozen=True, slots=True, kw_only=True)
class ValueNode(Node):
    """A value computed outside the block: rotary angles, rows of an encoder, an earlier layer's."""

    elems: Expression

    def build(self, scope: Scope, inputs: Sequence[Value], step: Mapping[str, Num]) -> str:
        """It is in memory."""
        return scope.add(self.name, OutsideValue(elems=self.size("elems", self.elems, step)), [])


@dataclass(frozen=True, slots=True, kw_only=True)
class HandOnNode(Node):
    """Values that later blocks take in addition to the block's result."""

    def build(self, scope: Scope, inputs: Sequence[Value], step: Mapping[str, Num]) -> str:
        """No operation: they stay in place."""
        return scope.add(self.name, Handed(elems=self.brought(scope, inputs)), inputs)


@dataclass(frozen=True, slots=True, kw_only=True)
class PartNode(Node):
    """`elems` elements of the inputs."""

    elems: Expression

    def build(self, scope: Scope, inputs: Sequence[Value], step: Mapping[str, Num]) -> str:
        """No operation: they stay in place."""
        return scope.add(self.name, SomeRows(elems=self.size("elems", self.elems, step)), inputs)


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinNode(Node):
    """Several values as one."""

    def build(self, scope: Scope, inputs: Sequence[Value], step: Mapping[str, Num]) -> str:
        """All of them."""
        return scope.add(self.name, Join(elems=self.brought(scope, inputs)), inputs)


@dataclass(frozen=True, slots=True, kw_only=True)
class TakeRowsNode(Node):
    """Rows copied out of a longer value: `rows`, or the positions whose logits are needed where these are not all."""

    width: int
    rows: Expression | None = None

    def build(self, scope: Scope, inputs: Sequence[Value], step: Mapping[str, Num]) -> str:
        """One copy, or the value itself."""
        if self.rows is None and scope.phase.all_logits:
            return self.whole(scope, inputs[0])
        rows = step["logit_rows"] if self.rows is None else self.size("rows", self.rows, step)
        return scope.add(self.name, TakeRows(rows=rows, width=self.width), inputs)
