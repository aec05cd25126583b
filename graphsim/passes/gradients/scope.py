"""One graph, or body of a repeat, while its gradients are derived: needed values, saved values, and resulting
gradients.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import networkx as nx
import numpy as np

from graphsim.graph import Step, Value, inputs_of
from graphsim.graph.walking import edge_elems
from graphsim.ops import (
    Add,
    AddGradients,
    Embedding,
    EncoderOutput,
    Gemm,
    Input,
    Join,
    KeptValue,
    KeptWeights,
    Op,
    Repeat,
    Rope,
    Slice,
)
from graphsim.ops.direction import Direction
from graphsim.ops.formats import FORMATS, Format
from graphsim.ops.gradients.attention import KeysAndValues
from graphsim.passes.backward_rules import BackwardRules
from graphsim.symbolic.questions import may_be_nonzero
from graphsim.units import Num

FP32 = FORMATS["fp32"]
WEIGHTS = "weights"
"""The kind of a storage that holds weights."""


def greater(one: Num, other: Num) -> Num:
    """The larger of two shares, without a formula if one of them is the constant 0."""
    if not may_be_nonzero(one):
        return other
    return np.maximum(one, other) if may_be_nonzero(other) and one is not other else one


@dataclass(frozen=True, slots=True)
class OpInput:
    """An input of an operation in the forward pass: its producer, its size, and whether it needs a gradient."""

    value: Value
    op: Op
    elems: Num
    need: Num


@dataclass(frozen=True, slots=True)
class Storage:
    """Memory of the forward pass: a node's result or a part of it, or a by-product (`what`)."""

    node: str
    part: str = ""
    what: str = ""

    @property
    def name(self) -> str:
        """Name of the node that saves it: `rope.q.kept`."""
        return ".".join(word for word in (self.node, self.part, self.what, "kept") if word)


@dataclass(slots=True)
class Scope:
    """The state of one graph during the reverse walk.

    repeat: name of the repeat whose body it is, "" outside
    needs: of each value, whether it requires a gradient
    again: nodes that run again before their backward
    steps: of the backward pass in launch order, without what is kept
    kept: values that they take
    given: gradients of each node's result, by its parts
    made: the steps' operations
    weighed: of each layer's experts, the rows that a router's weights multiply, and the gradients of their GEMMs
    """

    graph: nx.DiGraph
    rules: BackwardRules
    needs: dict[str, Num]
    repeat: str = ""
    again: frozenset[str] = frozenset()
    steps: list[Step] = field(default_factory=list)
    kept: dict[str, tuple[Storage, KeptValue]] = field(default_factory=dict)
    given: dict[str, list[tuple[tuple[str, ...], list[Value]]]] = field(default_factory=dict)
    made: dict[str, Op] = field(default_factory=dict)
    weighed: dict[int, list[Value]] = field(default_factory=dict)

    def op(self, node: str) -> Op:
        """An operation of the forward pass."""
        found: Op = self.graph.nodes[node]["op"]
        return found

    @property
    def tied(self) -> bool:
        """Whether the head's gradient is that of the embedding's table, too."""
        ops: Iterable[tuple[str, Op]] = self.graph.nodes(data="op")
        return any(isinstance(op, Gemm) and op.head and op.shared and may_be_nonzero(op.trained) for _, op in ops)

    def taken(self, name: str) -> list[OpInput]:
        """The inputs of a node of the forward pass."""
        return [
            OpInput(value, self.op(value.node), edge_elems(self.graph, value.node, name), self.needs[value.node])
            for value in inputs_of(self.graph, name)
        ]

    def emit(self, name: str, op: Op, inputs: Iterable[Value]) -> Value:
        """Add a step of the backward pass."""
        op = replace(op, direction=Direction.BACKWARD, trained=0.0)
        self.steps.append((name, op, list(dict.fromkeys(inputs))))
        self.made[name] = op
        return Value(name)

    def give(self, to: Value, gradient: list[Value]) -> None:
        """Pass a value's gradient (whole, or concatenated parts) to the node that produced it."""
        self.given.setdefault(to.node, []).append((to.parts, gradient))

    def gradient_of(self, name: str) -> list[Value]:
        """The gradient of a node's result: the sum over its consumers.

        Repeated calls return the same sum.
        """
        op, groups = self.op(name), dict[tuple[str, ...], list[list[Value]]]()
        for parts, values in self.given.get(name, ()):
            groups.setdefault(parts, []).append(values)
        named = [part for parts in groups for part in parts]
        if () in groups and len(groups) > 1 or len(named) != len(set(named)):
            groups = {(): [values for found in groups.values() for values in found]}
        gradient: list[Value] = []
        for parts, found in sorted(groups.items(), key=lambda group: _place(op, group[0])):
            if len(found) == 1:
                gradient += found[0]
                continue
            gradient.append(self._summed(name, parts, found))
        return gradient

    def _summed(self, name: str, parts: tuple[str, ...], found: list[list[Value]]) -> Value:
        summed = ".".join([name, *parts, "add_gradients"])
        if summed in self.made:
            return Value(summed)
        op, sizes = self.op(name), self.op(name).out_parts
        elems = sum((sizes[part] for part in parts), start=0.0) if parts else op.out_elems
        add = AddGradients(
            role=f"{op.role or name}.add_gradients", elems=scaled(elems, self.needs[name]), reads=float(len(found)),
            launches=float(len(found)) - 1.0, activations=op.activations, layer=op.layer, stage=op.stage,
        )  # fmt: skip
        return self.emit(summed, add, [value for each in found for value in each])

    def storages(self, value: Value) -> list[tuple[Storage, Num]]:
        """The storages of a value, and its elements in each; a join has the storages of its parts."""
        op = self.op(value.node)
        if isinstance(op, Join | KeysAndValues) and not isinstance(op, Slice):
            return [found for source in inputs_of(self.graph, value.node) for found in self.storages(source)]
        sizes = op.out_parts
        parts = value.parts or (tuple(sizes) if isinstance(op, Rope) else ())
        if parts:
            return [(Storage(value.node, part), sizes[part]) for part in parts]
        return [(Storage(value.node), op.out_elems)]

    def keep(
        self,
        storage: Storage,
        elems: Num,
        live: Num,
        form: Format | None = None,
        each: Num | None = None,
        takes_memory: bool = True,
    ) -> Value:
        """The node of a saved storage, as large as its most demanding consumer needs.

        form: of its elements, that of its maker by default
        each: bytes per element, where the format does not say
        """
        op, name = self.op(storage.node), storage.name
        form = form or self._form(op)
        elems = scaled(elems, live)
        if name in self.kept:
            before = self.kept[name][1]
            self.kept[name] = (storage, replace(before, elems=greater(before.elems, elems)))
            return Value(name)
        kind = KeptWeights if storage.what == WEIGHTS else KeptValue
        kept = kind(
            role=f"{op.role or storage.node}.kept", elems=elems, part=storage.part,
            of=f"{self.repeat}.{storage.node}" if self.repeat else storage.node,
            what=storage.what, kept_bytes_per_elem=form.bytes if each is None else each,
            again=storage.node in self.again, activations=form, layer=op.layer, direction=Direction.BACKWARD,
            adapter=op.adapter and not op.joins_base, takes_memory=takes_memory and not isinstance(op, EncoderOutput),
        )  # fmt: skip
        self.kept[name] = (storage, kept)
        return Value(name)

    def keep_value(self, value: Value, live: Num) -> list[Value]:
        """The nodes of the storages of a value."""
        return [self.keep(storage, elems, live) for storage, elems in self.storages(value)]

    def _form(self, op: Op) -> Format:
        stream = isinstance(op, Add | Input | Repeat | Embedding)
        return FP32 if stream and self.rules.residual_bytes == FP32.bytes else op.activations


def scaled(size: Num, live: Num) -> Num:
    """A size if it is needed, else 0."""
    return size if isinstance(live, float) and live == 1.0 else size * live


def _place(op: Op, parts: tuple[str, ...]) -> int:
    order = list(op.out_parts)
    return order.index(parts[0]) if parts and parts[0] in order else -1
