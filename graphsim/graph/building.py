"""Growing a graph: a networkx DiGraph whose nodes carry an `op`, and whose insertion order is launch order.

An edge may carry named parts of its source's result (a slice of packed qkv).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import networkx as nx

from graphsim.errors import GraphError
from graphsim.ops import Op
from graphsim.units import short


@dataclass(frozen=True, slots=True)
class Value:
    """The result of a node, or named parts of it."""

    node: str
    parts: tuple[str, ...] = ()


def require_graph(graph: object) -> None:
    """Raise GraphError for anything but a graph."""
    if not isinstance(graph, nx.DiGraph):
        raise GraphError(f"graph = {short(graph)} is not a networkx.DiGraph; build_graph makes one")


def add(graph: nx.DiGraph, name: str, op: Op, inputs: Iterable[str | Value] = ()) -> str:
    """Add a node after its inputs and return its name; adding the same operation again only adds inputs.

    Raises GraphError for a name that another operation has, and for an input that is not in the graph yet, including
    the node itself, as nodes are in launch order. Raises it as well for what is no graph, operation or list of inputs.
    """
    require_graph(graph)
    if not isinstance(op, Op):
        raise GraphError(f"node '{name}' has op = {short(op)}; expected an operation of graphsim.ops")
    if isinstance(inputs, str | Value) or not isinstance(inputs, Iterable):
        raise GraphError(f"node '{name}' has inputs = {short(inputs)}; expected a list of names")
    if name not in graph:
        graph.add_node(name, op=op)
    elif graph.nodes[name].setdefault("op", op) is not op:
        raise GraphError(f"two nodes are named '{name}'; names of nodes must be unique")
    for value in inputs:
        source, parts = (value.node, value.parts) if isinstance(value, Value) else (value, ())
        if source not in graph or source == name:
            raise GraphError(f"node '{name}' takes input from '{source}', which was not added before it")
        edge = graph.get_edge_data(source, name)
        if edge and edge["parts"]:
            parts = (*edge["parts"], *(p for p in parts if p not in edge["parts"]))
        graph.add_edge(source, name, parts=parts)
    return name


def inputs_of(graph: nx.DiGraph, name: str) -> list[Value]:
    """The values that a node takes, in the order in which they were given."""
    return [Value(source, parts_along(graph, source, name)) for source in graph.predecessors(name)]


def parts_along(graph: nx.DiGraph, source: str, target: str) -> tuple[str, ...]:
    """The named parts that an edge carries; none where it carries the whole result."""
    parts: tuple[str, ...] = graph.get_edge_data(source, target).get("parts", ())
    return parts
