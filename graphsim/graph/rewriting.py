"""The graph: a networkx DiGraph whose nodes carry an `op`; insertion order is launch order.

`add` grows it, `rewrite` replays it through a rule, `unroll` spells repeats out, `validate` checks it and
`to_text` prints it. An edge may carry named parts of its source's result (a slice of packed qkv).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, fields, replace
from typing import Any

import networkx as nx
import numpy as np

from graphsim.errors import GraphError
from graphsim.ops import Input, Op, Repeat, Work
from graphsim.units import Num, short


@dataclass(frozen=True, slots=True)
class Value:
    """The result of a node, or named parts of it."""

    node: str
    parts: tuple[str, ...] = ()


Step = tuple[str, Op, list[Value]]
Rule = Callable[[str, Op, list[Value]], Iterable[Step]]
"""A rule yields the steps (name, op, inputs) that replace a node; the last one stands for it from then on."""


def add(graph: nx.DiGraph, name: str, op: Op, inputs: Iterable[str | Value] = ()) -> str:
    """Add a node behind its inputs and return its name; adding a node again only adds inputs.

    Raises GraphError for an input that the graph does not hold yet: order is launch order.
    """
    graph.add_node(name, op=op)
    for source in inputs:
        value = source if isinstance(source, Value) else Value(source)
        if value.node not in graph:
            raise GraphError(f"node '{name}' takes input from '{value.node}', which is not added before it")
        parts = graph.edges[value.node, name]["parts"] if graph.has_edge(value.node, name) else ()
        graph.add_edge(value.node, name, parts=parts + tuple(p for p in value.parts if p not in parts))
    return name


def inputs_of(graph: nx.DiGraph, name: str) -> list[Value]:
    """The values that a node takes, in the order in which they were given."""
    return [Value(source, graph.edges[source, name].get("parts", ())) for source in graph.predecessors(name)]


def rewrite(graph: nx.DiGraph, rule: Rule, body: Callable[[Repeat], nx.DiGraph] | None = None) -> nx.DiGraph:
    """Replay a graph in launch order through a rule; the given graph stays as it is.

    The bodies of repeats are rewritten by `body`, by default through the same rule.
    Node attributes other than `op` are dropped: passes run before annotation.
    Raises GraphError where a rule takes input from what is not there yet.
    """
    out, moved = nx.DiGraph(), dict[str, str]()
    for name, op in graph.nodes(data="op"):
        if isinstance(op, Repeat):
            op = replace(op, body=body(op) if body else rewrite(op.body, rule))
        inputs = [Value(moved[value.node], value.parts) for value in inputs_of(graph, name)]
        for new, new_op, new_inputs in rule(name, op, inputs):
            moved[name] = add(out, new, new_op, new_inputs)
    return out


def unroll(graph: nx.DiGraph) -> nx.DiGraph:
    """The same program with every repeat spelled out; block i of `layers` becomes `layers.i.…`."""

    def rule(name: str, op: Op, inputs: list[Value]) -> Iterator[Step]:
        if not isinstance(op, Repeat):
            yield name, op, inputs
            return
        inner = unroll(op.body)
        for i in range(op.times):
            step = name
            for node, node_op in inner.nodes(data="op"):
                own = [Value(f"{name}.{i}.{v.node}", v.parts) for v in inputs_of(inner, node)]
                step = f"{name}.{i}.{node}"
                yield step, node_op, own if own or not isinstance(node_op, Input) else inputs
            inputs = [Value(step)]

    return rewrite(graph, rule, body=lambda repeat: repeat.body)


def walk(graph: nx.DiGraph, times: int = 1, prefix: str = "") -> Iterator[tuple[str, Op, int]]:
    """Every operation with its full name and how often it runs; repeats are entered, not yielded."""
    for name, op in graph.nodes(data="op"):
        if isinstance(op, Repeat):
            yield from walk(op.body, times * op.times, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", op, times


def total_work(graph: nx.DiGraph, once: bool = False) -> Work:
    """The work of all nodes, repeats multiplied out; of one-time nodes instead if `once`.

    Raises GraphError for anything but a graph.
    """
    if not isinstance(graph, nx.DiGraph):
        raise GraphError(f"graph = {short(graph)} is not a networkx.DiGraph; build_graph makes one")
    total = Work()
    for _, op, times in walk(graph):
        if op.once == once:
            total = total + op.work() * times
    return total


def edge_elems(graph: nx.DiGraph, source: str, target: str) -> Num:
    """How many elements flow along an edge."""
    op: Op = graph.nodes[source]["op"]
    parts = graph.edges[source, target].get("parts", ())
    if not parts:
        return op.out_elems
    sizes = op.out_parts
    unknown = [part for part in parts if part not in sizes]
    if unknown:
        raise GraphError(f"edge {source} -> {target} takes part '{unknown[0]}', which '{source}' does not have")
    return sum((sizes[part] for part in parts), start=0.0)


def validate(graph: nx.DiGraph) -> None:
    """Raise GraphError unless the graph is a valid program.

    Every node carries an op, order is launch order, and what flows in is as large as the op expects.
    """
    seen: set[str] = set()
    for name, data in graph.nodes(data=True):
        op = data.get("op")
        if not isinstance(op, Op):
            raise GraphError(f"node '{name}' carries no op")
        if isinstance(op, Repeat):
            _fail_if_repeat_is_empty(name, op)
            validate(op.body)
        late = [p for p in graph.predecessors(name) if p not in seen]
        if late:
            raise GraphError(f"node '{name}' is launched before its input '{late[0]}'")
        seen.add(name)
        _fail_if_sizes_differ(graph, name, op)


def _fail_if_repeat_is_empty(name: str, op: Repeat) -> None:
    if op.times < 1 or not len(op.body):
        raise GraphError(
            f"node '{name}' repeats a body of {len(op.body)} nodes {op.times} times; both must be at least 1"
        )


def _fail_if_sizes_differ(graph: nx.DiGraph, name: str, op: Op) -> None:
    expected = op.in_elems
    if expected is None:
        return
    sources = [p for p in graph.predecessors(name) if not isinstance(graph.nodes[p]["op"], Repeat)]
    if len(sources) < graph.in_degree(name):
        return
    found = sum((edge_elems(graph, source, name) for source in sources), start=0.0)
    if not np.allclose(found, expected, rtol=1e-9, atol=0.5):
        raise GraphError(
            f"node '{name}' expects {_number_text(expected)} elements, "
            f"its inputs {', '.join(sources) or '(none)'} bring {_number_text(found)}"
        )


def to_text(graph: nx.DiGraph, indent: str = "") -> str:
    """One line per node: name, op, inputs, dimensions; repeats indent their body. For golden files and eyes."""
    lines = []
    for name, op in graph.nodes(data="op"):
        sources = ", ".join(v.node + "".join(f"[{p}]" for p in v.parts) for v in inputs_of(graph, name))
        once = " once" if op.once else ""
        if isinstance(op, Repeat):
            lines.append(f"{indent}{name} = {op.times} x ({sources})")
            lines.append(to_text(op.body, indent + "    "))
            continue
        dims = " ".join(f"{key}={_number_text(value)}" for key, value in op.dims().items() if not _is_unset(op, key))
        lines.append(f"{indent}{name} = {type(op).__name__}({sources}) {dims}{_notes(op)}{once}".rstrip())
    return "\n".join(lines)


def _is_unset(op: Op, key: str) -> bool:
    """Whether a dimension is 0 and 0 is its default: a window, a limit, weights that this op does without."""
    default = next(field.default for field in fields(op) if field.name == key)
    return default == 0 and np.ndim(value := getattr(op, key)) == 0 and value == 0


def _notes(op: Op) -> str:
    split = getattr(op, "split", None)
    weights = getattr(op, "weights", None)
    return (f" {split.value}" if split else "") + (f" {weights.name}" if weights else "")


def _number_text(value: Any) -> str:
    array = np.asarray(value, dtype=float)
    if array.ndim:
        return f"[{array.min():.12g}..{array.max():.12g}]"
    return f"{float(array):.12g}"
