"""Nodes for the structure of a graph rather than for computation: input and repetition."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import networkx as nx

from graphsim.ops.base import Op, OpType, Sharding
from graphsim.ops.saved import Saved
from graphsim.units import Num


def last_node(graph: nx.DiGraph) -> str:
    """Name of the node launched last: a block's result."""
    *_, last = graph
    return str(last)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Input(Op):
    """The entry of a block's incoming value; no work, no time."""

    launched: ClassVar[bool] = False
    sharding: ClassVar[Sharding] = Sharding.WHOLE

    elems: Num

    @property
    def out_elems(self) -> Num:
        """The value that enters."""
        return self.elems

    @property
    def saved(self) -> Saved:
        """Nothing: the consumer of the value saves it."""
        return Saved()

    def cut(self, ways: Num) -> Input:
        """A share of the elements."""
        return replace(self, elems=self.elems / ways)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Repeat(Op):
    """`times` identical blocks in a chain; the body's last node is its result.

    first_layer: index of the first layer it stands for
    layers: how many layers one body holds; a body node's `{}` module path counts from its own `layer`
    runs_again: whether its turns are recomputed before their backward pass, if anything is recomputed
    """

    op_type: ClassVar[OpType] = OpType.REPEAT
    launched: ClassVar[bool] = False
    sharding: ClassVar[Sharding] = Sharding.WHOLE

    body: nx.DiGraph
    times: int
    first_layer: int = 0
    layers: int = 1
    runs_again: bool = True

    @property
    def result(self) -> str:
        """Name of the body's last node."""
        return last_node(self.body)

    @property
    def out_elems(self) -> Num:
        """What the body's last node yields."""
        out: Num = self.body.nodes[self.result]["op"].out_elems
        return out

    @property
    def saved(self) -> Saved:
        """Nothing: bodies are evaluated node by node."""
        return Saved()

    def cut(self, ways: Num) -> Repeat:
        """Bodies are sharded node by node."""
        return self
