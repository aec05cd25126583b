"""Entries that read values and write one: sums, nonlinearities, copies, and operations stated by their author."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from graphsim.files.arithmetic import Expression
from graphsim.graph import Value
from graphsim.models.layers.base import NEARLY_NONE, Scope
from graphsim.models.layers.custom.node import Node
from graphsim.ops import Activation, Add, Compute, Elementwise
from graphsim.units import Num

STEPS = {"add": 1.0, "activation": 4.0, "elementwise": 1.0}
"""Operations per element of the kinds of elementwise nodes, unless they say otherwise."""

_PLAIN: dict[str, type[Elementwise]] = {"add": Add, "elementwise": Elementwise}


@dataclass(frozen=True, slots=True, kw_only=True)
class ElementwiseNode(Node):
    """Sums, nonlinearities, gates: `elems` results (as many as the first input has), `steps` operations each.

    reads: elements read, those of the inputs by default
    unchecked: the inputs' sizes need not match
    learned: weights of its own
    """

    kind: str
    elems: Expression | None = None
    reads: Expression | None = None
    steps: float
    learned: int = 0
    unchecked: bool = False

    def build(self, scope: Scope, inputs: Sequence[Value], step: Mapping[str, Num]) -> str:
        """Reads all inputs once, writes the result once."""
        first = self.brought(scope, inputs[:1])
        elems = first if self.elems is None else self.size("elems", self.elems, step)
        read = self.brought(scope, inputs) if self.reads is None else self.size("reads", self.reads, step)
        reads, unchecked = read / np.maximum(elems, NEARLY_NONE), self.unchecked and not self.idle
        if self.learned or self.kind not in _PLAIN:
            made: Elementwise = Activation(
                elems=elems, reads=reads, steps=self.steps, learned=self.learned, unchecked=unchecked
            )
        else:
            made = _PLAIN[self.kind](elems=elems, reads=reads, steps=self.steps, unchecked=unchecked)
        return scope.add(self.name, made, inputs)


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyNode(Node):
    """Values copied once, into `elems` contiguous elements (by default those of the inputs)."""

    elems: Expression | None = None

    def build(self, scope: Scope, inputs: Sequence[Value], step: Mapping[str, Num]) -> str:
        """One kernel without arithmetic."""
        read = self.brought(scope, inputs)
        elems = read if self.elems is None else self.size("elems", self.elems, step)
        copy = Elementwise(elems=elems, reads=read / np.maximum(elems, NEARLY_NONE), steps=0.0)
        return scope.add(self.name, copy, inputs)


@dataclass(frozen=True, slots=True, kw_only=True)
class ComputeNode(Node):
    """An operation of which the author states results, work, weights and state.

    reads, unchecked: as of an elementwise node
    launches: kernels that it starts
    note: what it is
    """

    elems: Expression | None = None
    reads: Expression | None = None
    flops: Expression | None = None
    vector_flops: Expression | None = None
    weights: int = 0
    state: Expression | None = None
    launches: int = 1
    unchecked: bool = False
    note: str = ""

    def build(self, scope: Scope, inputs: Sequence[Value], step: Mapping[str, Num]) -> str:
        """Only the stated work."""
        stated = {
            name: 0.0 if expression is None else self.size(name, expression, step)
            for name, expression in (("flops", self.flops), ("vector_flops", self.vector_flops), ("state", self.state))
        }
        op = Compute(
            elems=self.brought(scope, inputs[:1]) if self.elems is None else self.size("elems", self.elems, step),
            reads=self.brought(scope, inputs) if self.reads is None else self.size("reads", self.reads, step),
            flops=stated["flops"],
            vector_flops=stated["vector_flops"],
            weights_elems=self.weights,
            state_elems=stated["state"],
            launches=self.launches,
            unchecked=self.unchecked and not self.idle,
            note=self.note,
        )
        return scope.add(self.name, op, inputs)
