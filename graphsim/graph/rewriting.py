"""The one verb: `rewrite` replays a graph in launch order, and a rule says what each node becomes.

A pass is a frozen dataclass whose fields are its arguments. It makes a rule for each graph that it is given, so the
rule may look at the whole graph, and keep state while that graph is replayed.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import networkx as nx

from graphsim.errors import GraphError
from graphsim.graph.building import Value, add, inputs_of, parts_along, require_graph
from graphsim.graph.sound import require_sound
from graphsim.graph.stages import Stage
from graphsim.graph.walking import walk
from graphsim.ops import Input, Op, Repeat
from graphsim.units import amount_text, short

Step = tuple[str, Op, list[Value]]
Rule = Callable[[str, Op, list[Value]], Iterable[Step | Value]]
"""A rule yields the steps (name, op, inputs) that replace a node; the last one stands for it from then on.

It may also yield a `Value`, which then stands for the node without another step. `inputs` are values of the new graph,
in the order of the node's inputs in the old one.
"""


MOST_OPERATIONS = 2_000_000
"""The limit for a graph with unrolled repeats: some gigabytes."""


class Pass(ABC):
    """A graph rewriting by one rule. Subclasses are frozen dataclasses whose fields are the pass's arguments.

    stage: the stage of the graphs that it returns; a user's own pass runs after all others of its stage
    """

    __slots__ = ()
    stage: ClassVar[Stage] = "lowered"

    @abstractmethod
    def rule(self, graph: nx.DiGraph) -> Rule:
        """The rule for a graph, or for the body of a repeat; state that the rule keeps belongs to that graph."""

    def body(self, repeat: Repeat) -> nx.DiGraph:
        """The pass for a repeat's body, applied before the rule sees the repeat: the same pass by default."""
        return rewrite(repeat.body, self)

    def __call__(self, graph: nx.DiGraph) -> nx.DiGraph:
        """The rewritten graph; the given one does not change, and is returned if the pass changes nothing."""
        return rewrite(graph, self)


def rewrite(graph: nx.DiGraph, rule: Rule | Pass) -> nx.DiGraph:
    """Replay a graph in launch order through a rule or a pass; the given graph does not change.

    Where nothing changes, the given graph itself is returned. Bodies of repeats are rewritten by the same rule, or as
    the pass defines. A consumer that takes parts of a node gets these parts of its replacement; a consumer that names
    no parts gets those of the replacement, if it is a `Value` with parts.
    Node attributes other than `op` are dropped, as passes run before annotation.
    The last node is the graph's result, so in a repeat's body a rule adds the result after all other nodes.
    Raises GraphError where a rule takes input from a node that is not there yet, omits a node that another one needs,
    gives two nodes the same name, or yields anything other than a step or a Value.
    """
    require_graph(graph)
    replay: Rule = rule.rule(graph) if isinstance(rule, Pass) else rule
    if not callable(replay):
        raise GraphError(f"{_called(rule)} has {short(replay)} for a rule; expected a function of name, op and inputs")
    out: nx.DiGraph | None = None
    stands: dict[str, Value] = {}
    for name, old in graph.nodes(data="op"):
        op = old
        if isinstance(op, Repeat):
            body = rule.body(op) if isinstance(rule, Pass) else rewrite(op.body, rule)
            op = op if body is op.body else replace(op, body=body)
        inputs = [_now(stands, source, name, graph, rule) for source in graph.predecessors(name)]
        taken = tuple(inputs)
        steps = replay(name, op, inputs)
        if not hasattr(steps, "__iter__"):
            raise _not_yielded(rule, name, steps)
        if out is None:
            steps = list(steps)
            if _is_same(steps, name, old, taken):
                stands[name] = Value(name)
                continue
            out = _before(graph, name)
        for step in steps:
            stands[name] = step if isinstance(step, Value) else _added(out, step, rule, name)
    if out is not None:
        return out
    return graph if not graph.graph and all(len(data) == 1 for _, data in graph.nodes(data=True)) else _before(graph)


def _is_same(steps: list[Any], name: str, op: Op, inputs: tuple[Value, ...]) -> bool:
    """Whether the steps equal the node that they replace."""
    if len(steps) != 1 or not isinstance(steps[0], tuple) or len(steps[0]) != 3:
        return False
    step_name, step_op, step_inputs = steps[0]
    return step_op is op and step_name == name and isinstance(step_inputs, list) and tuple(step_inputs) == inputs


def _before(graph: nx.DiGraph, end: str | None = None) -> nx.DiGraph:
    """A copy of a graph's nodes before a given one; of the whole graph if none is given."""
    out = nx.DiGraph()
    for name, op in graph.nodes(data="op"):
        if end is not None and name == end:
            break
        out.add_node(name, op=op)
        for source in graph.predecessors(name):
            out.add_edge(source, name, parts=parts_along(graph, source, name))
    return out


def _added(out: nx.DiGraph, step: Any, rule: Rule | Pass, replaced: str) -> Value:
    """The node that a step adds. Raises GraphError, naming the rule, for an invalid step."""
    if not isinstance(step, tuple) or len(step) != 3:
        raise _not_yielded(rule, replaced, step)
    name, op, inputs = step
    if not (isinstance(name, str) and isinstance(inputs, list | tuple) and isinstance(op, Op)):
        raise _not_yielded(rule, replaced, step)
    if name in out and (inputs or op is not out.nodes[name]["op"]):
        raise GraphError(f"{_called(rule)} yields '{name}' for node '{replaced}', a name that it yielded before")
    try:
        return Value(add(out, name, op, inputs))
    except GraphError as error:
        raise GraphError(f"{_called(rule)}: {error}") from None


def _not_yielded(rule: Rule | Pass, replaced: str, found: Any) -> GraphError:
    expected = "steps, each a (name, op, list of inputs) or a Value"
    return GraphError(f"{_called(rule)} yields {short(found)} for node '{replaced}'; expected {expected}")


def _called(rule: Rule | Pass) -> str:
    return f"pass {type(rule).__name__}" if isinstance(rule, Pass) else f"rule {getattr(rule, '__name__', '')}".strip()


def _now(stands: dict[str, Value], source: str, user: str, graph: nx.DiGraph, rule: Rule | Pass) -> Value:
    """The value of the new graph that replaces a value of the old one."""
    found, parts = stands.get(source), parts_along(graph, source, user)
    if found is None:
        raise GraphError(
            f"node '{user}' takes input from '{source}', for which {_called(rule)} yielded nothing; "
            "yield a Value to replace a node that is left out"
        )
    return Value(found.node, parts) if parts else found


@dataclass(frozen=True, slots=True)
class Unroll(Pass):
    """Spells repeats out; block i of `layers` becomes `layers.i.…`."""

    def body(self, repeat: Repeat) -> nx.DiGraph:
        """The rule unrolls it."""
        return repeat.body

    def rule(self, graph: nx.DiGraph) -> Rule:
        """Each block takes the result of the one before it."""
        return _spelled_out


def _spelled_out(name: str, op: Op, inputs: list[Value]) -> Iterator[Step]:
    if not isinstance(op, Repeat):
        yield name, op, inputs
        return
    from graphsim.ops import EncoderOutput, Handed

    inner = rewrite(op.body, Unroll())
    nodes = [(node, node_op, inputs_of(inner, node)) for node, node_op in inner.nodes(data="op")]
    handed = {node_op.stream: node for node, node_op, values in nodes if isinstance(node_op, Handed) and values}
    taken = [node for node, node_op, values in nodes if isinstance(node_op, Handed) and not values]
    apart = dict(zip(taken, inputs, strict=False))
    encoded = any(isinstance(node_op, EncoderOutput) for _, node_op, _ in nodes)
    inputs, beside = (inputs[:1], inputs[1:]) if encoded else (inputs, [])
    for i in range(op.times):
        step = name
        for node, node_op, values in nodes:
            own = [Value(f"{name}.{i}.{v.node}", v.parts) for v in values]
            if not own:
                own = [apart[node]] if node in apart else _entering(node_op, inputs, beside)
            step = f"{name}.{i}.{node}"
            yield step, node_op, own
        inputs = [Value(step)]
        apart = {node: Value(f"{name}.{i}.{handed[inner.nodes[node]['op'].stream]}") for node in taken}


def _entering(op: Op, inputs: list[Value], beside: list[Value]) -> list[Value]:
    """What a node of a block takes from outside: the value that passes from block to block, or that of an encoder."""
    from graphsim.ops import EncoderOutput

    return inputs if isinstance(op, Input) else beside if isinstance(op, EncoderOutput) else []


def unroll(graph: nx.DiGraph) -> nx.DiGraph:
    """The same program with every repeat expanded; block i of `layers` becomes `layers.i.…`.

    Raises GraphError if the graph is not valid, and for one with too many operations for memory.
    """
    require_spelled_out(require_sound(graph))
    return rewrite(graph, Unroll())


def require_spelled_out(graph: nx.DiGraph) -> None:
    """Raise GraphError if unrolled repeats would have more operations than fit in memory."""
    operations = sum(times for _, _, times in walk(graph))
    if operations > MOST_OPERATIONS:
        raise GraphError(
            f"spelled out, the graph has {amount_text(operations)} operations; allowed: up to "
            f"{amount_text(MOST_OPERATIONS)}"
        )
