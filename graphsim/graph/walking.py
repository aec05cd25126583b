"""Reading a graph: every operation with how often it runs, the work of all, the elements along an edge."""

from __future__ import annotations

from collections.abc import Iterator

import networkx as nx

from graphsim.errors import GraphError
from graphsim.graph.sound import require_sound
from graphsim.ops import Op, Repeat, Work
from graphsim.units import Num


def walk(graph: nx.DiGraph, times: int = 1, prefix: str = "") -> Iterator[tuple[str, Op, int]]:
    """Every operation with its full name and how often it runs; repeats are entered, not yielded."""
    for name, op in graph.nodes(data="op"):
        if isinstance(op, Repeat):
            yield from walk(op.body, times * op.times, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", op, times


def total_work(graph: nx.DiGraph, once: bool = False) -> Work:
    """The work of all nodes, with repeats multiplied out.

    once: count the one-time nodes instead
    Raises GraphError unless it is a graph of operations in launch order with finite dimensions.
    """
    total = Work()
    for _, op, times in walk(require_sound(graph)):
        if op.once == once:
            total = total + op.work() * times
    return total


def edge_elems(graph: nx.DiGraph, source: str, target: str) -> Num:
    """How many elements flow along an edge. Raises GraphError for a part that the source does not have."""
    op: Op = graph.nodes[source]["op"]
    parts = graph.edges[source, target].get("parts", ())
    if not parts:
        return op.out_elems
    sizes = op.out_parts
    unknown = [part for part in parts if part not in sizes]
    if unknown:
        raise GraphError(f"edge '{source}' -> '{target}' takes part '{unknown[0]}', which its source does not have")
    return sum((sizes[part] for part in parts), start=0.0)
