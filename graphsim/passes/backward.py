"""The backward pass, derived from the forward graph: one gradient rule per kind of operation, run from the loss back.

A gradient is derived only where something before it is trained (`graphsim.passes.gradients.requires`), so a frozen
base has no weight gradients, and nothing below the first trained weight is visited.
"""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import networkx as nx

from graphsim.graph import Value, add, inputs_of
from graphsim.ops import (
    Activation,
    Attention,
    Elementwise,
    EncoderOutput,
    ExpertActivation,
    ExpertGemm,
    Gemm,
    Input,
    Join,
    KeptValue,
    LoraInput,
    Norm,
    Op,
    Permute,
    Repeat,
    Rope,
    Route,
    SomeRows,
)
from graphsim.ops.adapter_weights import HeldWeights
from graphsim.ops.direction import Direction
from graphsim.ops.structure import last_node
from graphsim.passes.backward_rules import BackwardRules
from graphsim.passes.gradients import ForwardNode, Scope, Storage, gradients, scaled
from graphsim.passes.gradients.requires import enters, requirements
from graphsim.passes.training_forward import TrainingForward
from graphsim.passes.turns import AlikeTurns, RecomputedTurns
from graphsim.symbolic.questions import may_be_nonzero
from graphsim.units import Num

ENTRY = "gradient"
"""The node of a backward body at which the gradient of a turn's result enters."""


def backward(graph: nx.DiGraph, rules: BackwardRules) -> nx.DiGraph:
    """The graph of a forward pass over all logits, with its loss and the backward pass.

    graph: logical, with its adapter injected and trained weights marked (`mark_trained`)
    A repeat `layers` gets a repeat `layers.backward`, whose body is the layer's backward pass. What autograd saves are
    `KeptValue` nodes of that body, one for each storage. A first turn whose input needs no gradient is separated.
    Raises GraphError for an operation without a gradient rule.
    """
    graph = TrainingForward(rules=rules)(graph)
    if rules.recompute != "none" and rules.recompute_every > 1:
        graph = RecomputedTurns(every=rules.recompute_every)(graph)
    graph = AlikeTurns(rules=rules)(graph)
    scope = Scope(graph, rules, requirements(graph, rules, rules.entry))
    out = graph.copy()
    if not any(_starts(op) for _, op in graph.nodes(data="op")):
        _enter(out, scope)
    _differentiate(scope)
    return _assembled(out, scope)


def _enter(out: nx.DiGraph, scope: Scope) -> None:
    """The entry of the gradient of a pipeline stage's result, which comes from the next stage."""
    result = last_node(scope.graph)
    op = scope.op(result)
    came = Input(
        role=ENTRY, elems=scaled(op.out_elems, scope.needs[result]), activations=op.activations,
        direction=Direction.BACKWARD,
    )  # fmt: skip
    scope.give(Value(result), [Value(add(out, ENTRY, came))])
    scope.made[ENTRY] = came


def _differentiate(scope: Scope) -> None:
    """Apply the gradient rule of every operation that a gradient reaches, the last one first."""
    for name in reversed(list(scope.graph)):
        op = scope.op(name)
        if not may_be_nonzero(scope.needs[name]) or not (name in scope.given or _starts(op)):
            continue
        here = ForwardNode(name, op, scope, scope.gradient_of(name), scope.taken(name))
        if isinstance(op, Repeat):
            _repeat(op, here)
        else:
            gradients(op, here)


def _starts(op: Op) -> bool:
    return type(op).__name__ == "Loss"


def _repeat(op: Repeat, here: ForwardNode) -> None:
    """Its turns in reverse: the gradient of the last result comes in, that of the first turn's input goes out."""
    rules, entry = here.rules, enters(op, here.rules, here.flowing[0].need)
    needs = requirements(op.body, rules, entry, *(taken.need for taken in here.flowing[1:]))
    scope = Scope(op.body, rules, needs, repeat=here.name, again=_run_again(op, rules))
    result = last_node(op.body)
    scope.give(Value(result), [Value(ENTRY)])
    came = Input(role=ENTRY, elems=scaled(op.out_elems, needs[result]), direction=Direction.BACKWARD)
    scope.made[ENTRY] = came
    _differentiate(scope)
    body = nx.DiGraph()
    add(body, ENTRY, came)
    start = next(name for name, inner in op.body.nodes(data="op") if isinstance(inner, Input))
    if start in scope.given:
        gradient = scope.gradient_of(start)
        if len(gradient) > 1 or scope.steps[-1][0] != gradient[0].node or gradient[0].parts:
            elems = scaled(scope.op(start).out_elems, needs[start])
            scope.emit(f"{start}.gradient", Join(role=start, elems=elems), gradient)
    _assembled(body, scope)
    repeat = replace(op, body=body, role=f"{here.name}.backward")
    turned = here.scope.emit(f"{here.name}.backward", repeat, here.dy)
    if start in scope.given:
        here.give(here.flowing[0], [turned])
    for taken in here.flowing[1:]:
        if may_be_nonzero(taken.need):
            summed = SomeRows(elems=scaled(taken.elems, taken.need), activations=taken.op.activations)
            kept = here.keep_input(taken, taken.need)  # one storage, which the gradients of every turn read
            here.give(taken, [here.emit("backward.encoder_output", summed, [turned, *kept])])


_KINDS: dict[str, tuple[type[Op], ...]] = {
    "attention": (Attention,), "norm": (Norm,), "rope": (Rope,), "activation": (Activation, ExpertActivation),
    "expert_activation": (ExpertActivation,), "elementwise": (Elementwise, LoraInput), "linear": (Gemm,),
    "experts": (ExpertGemm, ExpertActivation, Permute, Route),
}  # fmt: skip


def _run_again(repeat: Repeat, rules: BackwardRules) -> frozenset[str]:
    """The nodes of a turn that are recomputed before its backward pass."""
    if rules.recompute == "none" or not repeat.runs_again:
        return frozenset()
    never = Input | EncoderOutput | HeldWeights
    ops = [(name, op) for name, op in repeat.body.nodes(data="op") if not isinstance(op, never)]
    if rules.recompute == "full":
        return frozenset(name for name, _ in ops)
    kinds = tuple(kind for name in rules.recomputed for kind in _KINDS.get(name, ()))
    products = [name for name, op in ops if isinstance(op, Gemm) and not op.adapter]
    second = products[1::2] if "second_linear" in rules.recomputed else []
    return frozenset([*second, *(name for name, op in ops if isinstance(op, kinds))])


def _assembled(out: nx.DiGraph, scope: Scope) -> nx.DiGraph:
    """The steps after the existing graph, with each saved value in front of its first consumer."""
    placer = _Placer(out, scope)
    if scope.rules.recompute == "full" and scope.again:
        placer.all_again()
    for name, op, inputs in scope.steps:
        for value in inputs:
            if value.node in scope.kept:
                placer.keep(value.node)
        add(out, name, op, inputs)
    return out


class _Placer:
    """Inserts saved values into a backward graph, and recomputes those that were not saved."""

    def __init__(self, out: nx.DiGraph, scope: Scope) -> None:
        self.out, self.scope = out, scope
        self.live: Num = scope.needs[last_node(scope.graph)]

    def all_again(self) -> None:
        """The recomputation of a whole turn before all gradients, node by node.

        Re-entrant checkpoints run it to its end, others to the last saved value: everything before that is recomputed
        whether or not it is needed (PyTorch, `torch/utils/checkpoint.py`, _StopRecomputationError).
        """
        made = {storage.node for storage, kept in self.scope.kept.values() if kept.again}
        nodes = [node for node in self.scope.graph if node in self.scope.again]
        while nodes and nodes[-1] not in made and not self.scope.rules.reentrant:
            nodes.pop()
        for node in nodes:
            self.run(node)
        for name in list(self.scope.kept):
            self.keep(name)

    def keep(self, name: str) -> None:
        """Insert a saved value."""
        if name in self.out:
            return
        storage, kept = self.scope.kept[name]
        made = [self.run(storage.node)] if kept.again else []
        add(self.out, name, kept, [Value(node, (storage.part,) if storage.part else ()) for node in made])

    def run(self, node: str) -> str:
        """Recompute a node, after its inputs."""
        name, op = f"recompute.{node}", self.scope.op(node)
        if name not in self.out:
            inputs = [found for value in inputs_of(self.scope.graph, node) for found in self._source(value)]
            add(self.out, name, _again(op, self.live), inputs)
        return name

    def _source(self, value: Value) -> list[Value]:
        if value.node in self.scope.again:
            return [Value(self.run(value.node), value.parts)]
        if self.scope.op(value.node).constant:
            return []
        found = []
        for storage, elems in self.scope.storages(value):
            name = self.scope.keep(storage, elems, self.live).node
            self.keep(name)
            found.append(Value(name))
        return found


_ROWS = ("m", "rows", "tokens", "elems", "new_tokens", "query_tokens", "kv_tokens", "pairs")
"""Fields for the amount of an operation's work."""


def _again(op: Op, live: Num) -> Op:
    names = [f.name for f in fields(op) if f.name in _ROWS]
    sizes: dict[str, Any] = {name: scaled(getattr(op, name), live) for name in names}
    return replace(op, direction=Direction.RECOMPUTE, trained=0.0, **sizes)


__all__ = ["KeptValue", "Storage", "backward"]
