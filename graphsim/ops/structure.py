"""Nodes for the structure of a graph rather than for computation: input, repetition, kernels that run as one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import reduce
from operator import add
from typing import Any, ClassVar

import networkx as nx
import numpy as np

from graphsim.ops.base import HOST, Op, OpType, Sharding, Work
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
class OutsideValue(Op):
    """A value computed outside the block (rotary angles, an earlier layer's result); no data is moved."""

    launched: ClassVar[bool] = False
    sharding: ClassVar[Sharding] = Sharding.WHOLE

    elems: Num

    @property
    def out_elems(self) -> Num:
        """All of it."""
        return self.elems

    @property
    def is_view(self) -> Any:
        """Whether it takes no memory of its own: it is held elsewhere."""
        return True

    @property
    def saved(self) -> Saved:
        """Nothing: the consumer of the value saves it."""
        return Saved()

    def cut(self, ways: Num) -> OutsideValue:
        """A share of the elements."""
        return replace(self, elems=self.elems / ways)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EncoderOutput(OutsideValue):
    """An encoder's result as the layers of a decoder read it: one value for all turns of a repeat; no data is moved.

    It is a node without inputs in the repeat's body; the repeat takes the encoder's result as a second input.
    """


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Join(Op):
    """Several values as one; no data is moved."""

    launched: ClassVar[bool] = False

    elems: Num

    @property
    def out_elems(self) -> Num:
        """All of them together."""
        return self.elems

    @property
    def in_elems(self) -> Num | None:
        """All of them together."""
        return self.elems

    @property
    def saved(self) -> Saved:
        """Nothing: the consumer of the value saves it."""
        return Saved()

    def cut(self, ways: Num) -> Join:
        """A share of the elements."""
        return replace(self, elems=self.elems / ways)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Slice(Join):
    """A device's own part of a replicated value; no data is moved.

    parts: number of such parts; 0 = not stated
    """

    sharding: ClassVar[Sharding] = Sharding.DEAL_OUT

    parts: Num = 0.0

    @property
    def is_view(self) -> Any:
        """If it is the only part; one of several has its own memory, so that the whole value may be freed."""
        return np.equal(self.parts, 1.0)

    @property
    def in_elems(self) -> Num | None:
        """Any size: it is a part of its input."""
        return None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SomeRows(Join):
    """Some rows of a value, on each device that holds it or a part of it; no data is moved."""

    follows: ClassVar[bool] = True

    @property
    def in_elems(self) -> Num | None:
        """Any size: they are rows of its input."""
        return None


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


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Together(Op):
    """Kernels that run concurrently on one device: one op with the sum of their work."""

    op_type: ClassVar[OpType] = OpType.TOGETHER

    parts: tuple[Op, ...]

    def work(self) -> Work:
        """The sum of the parts' work."""
        return reduce(add, (part.work() for part in self.parts))

    @property
    def parameters(self) -> Num:
        """The sum of the parts' weights."""
        return sum((part.parameters for part in self.parts), start=0.0)

    @property
    def weight_storage_bytes(self) -> Num:
        """The sum of the parts' weights in bytes."""
        return sum((part.weight_storage_bytes for part in self.parts), start=0.0)

    @property
    def trainable_parameters(self) -> Num:
        """The sum of the parts' trained weights."""
        return sum((part.trainable_parameters for part in self.parts), start=0.0)

    @property
    def saved(self) -> Saved:
        """What each part saves."""
        return reduce(add, (part.saved for part in self.parts))

    @property
    def saved_for_weights(self) -> Saved:
        """What each part saves."""
        return reduce(add, (part.saved_for_weights for part in self.parts))

    @property
    def out_elems(self) -> Num:
        """Elements of the last part's result."""
        return self.parts[-1].out_elems

    def cut(self, ways: Num) -> Together:
        """Each part is cut."""
        return replace(self, parts=tuple(part.cut(ways) for part in self.parts))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Launch(Op):
    """The host's launch of `times` kernels, each taking the device's eager launch time.

    called_s: additional host time in seconds: Python calls of modules and of the kernels' operations
    """

    op_type: ClassVar[OpType] = OpType.LAUNCH
    launched: ClassVar[bool] = False

    stream: str = HOST
    times: Num = 1.0
    called_s: Num = 0.0

    @property
    def out_elems(self) -> Num:
        """Nothing flows."""
        return 0.0

    @property
    def saved(self) -> Saved:
        """Nothing: no value flows."""
        return Saved()

    def cut(self, ways: Num) -> Launch:
        """Every device launches its own."""
        return self
