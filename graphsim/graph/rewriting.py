"""The one verb: `rewrite` replays a graph in launch order, and a rule says what each node becomes.

A pass is a frozen dataclass whose fields are its arguments. It makes a rule for each graph that it is given, so the
rule may look at the whole graph, and keep state while that graph is replayed.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

import networkx as nx

from graphsim.errors import GraphError
from graphsim.graph.building import Value, add, inputs_of, parts_along
from graphsim.graph.validation import Stage
from graphsim.ops import Input, Op, Repeat

Step = tuple[str, Op, list[Value]]
Rule = Callable[[str, Op, list[Value]], Iterable[Step | Value]]
"""A rule yields the steps (name, op, inputs) that replace a node; the last one stands for it from then on.

It may also yield a `Value`, which then stands for the node without another step. `inputs` are values of the new graph,
in the order of the node's inputs in the old one.
"""


class Pass(ABC):
    """From graph to graph by one rule. Subclasses are frozen dataclasses whose fields are the pass's arguments.

    stage: of the graphs that it yields; a user's own pass runs behind all others of its stage
    """

    __slots__ = ()
    stage: ClassVar[Stage] = "lowered"

    @abstractmethod
    def rule(self, graph: nx.DiGraph) -> Rule:
        """The rule for one graph, or for the body of a repeat; state that it keeps is that graph's own."""

    def body(self, repeat: Repeat) -> nx.DiGraph:
        """What becomes of a repeat's body before the rule sees the repeat: the same pass, unless it says otherwise."""
        return rewrite(repeat.body, self)

    def __call__(self, graph: nx.DiGraph) -> nx.DiGraph:
        """The rewritten graph; the given one stays as it is."""
        return rewrite(graph, self)


def rewrite(graph: nx.DiGraph, rule: Rule | Pass) -> nx.DiGraph:
    """Replay a graph in launch order through a rule or a pass; the given graph stays as it is.

    Bodies of repeats are rewritten by the same rule, or as the pass says. Where a user asks for parts of a node, it
    gets these parts of what stands for the node; otherwise the parts of the stand-in, where it is a `Value` with parts.
    Node attributes other than `op` are dropped: passes run before annotation.
    The last node is the graph's result, so in a repeat's body a rule leaves the result behind all others.
    Raises GraphError where a rule takes input from what is not there yet, or left a node out that another one needs.
    """
    replay: Rule = rule.rule(graph) if isinstance(rule, Pass) else rule
    out, stands = nx.DiGraph(), dict[str, Value]()
    for name, op in graph.nodes(data="op"):
        if isinstance(op, Repeat):
            body = rule.body(op) if isinstance(rule, Pass) else rewrite(op.body, rule)
            op = op if body is op.body else replace(op, body=body)
        inputs = [_now(stands, source, parts_along(graph, source, name), name) for source in graph.predecessors(name)]
        for step in replay(name, op, inputs):
            if not isinstance(step, Value):
                new, new_op, new_inputs = step
                step = Value(add(out, new, new_op, new_inputs))
            stands[name] = step
    return out


def _now(stands: dict[str, Value], source: str, parts: tuple[str, ...], user: str) -> Value:
    """What a value that a node takes in the old graph is in the new one."""
    found = stands.get(source)
    if found is None:
        raise GraphError(
            f"node '{user}' takes input from '{source}', for which the rule yielded nothing; "
            "a Value says what stands for a node that is left out"
        )
    return Value(found.node, parts) if parts else found


@dataclass(frozen=True, slots=True)
class Unroll(Pass):
    """Spells repeats out; block i of `layers` becomes `layers.i.…`."""

    def body(self, repeat: Repeat) -> nx.DiGraph:
        """The rule spells it out."""
        return repeat.body

    def rule(self, graph: nx.DiGraph) -> Rule:
        """Each block takes the result of the one before it."""
        return _spelled_out


def _spelled_out(name: str, op: Op, inputs: list[Value]) -> Iterator[Step]:
    if not isinstance(op, Repeat):
        yield name, op, inputs
        return
    inner = unroll(op.body)
    nodes = [(node, node_op, inputs_of(inner, node)) for node, node_op in inner.nodes(data="op")]
    for i in range(op.times):
        step = name
        for node, node_op, values in nodes:
            own = [Value(f"{name}.{i}.{v.node}", v.parts) for v in values]
            step = f"{name}.{i}.{node}"
            yield step, node_op, own if own or not isinstance(node_op, Input) else inputs
        inputs = [Value(step)]


def unroll(graph: nx.DiGraph) -> nx.DiGraph:
    """The same program with every repeat spelled out; block i of `layers` becomes `layers.i.…`."""
    return rewrite(graph, Unroll())
