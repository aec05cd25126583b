"""Properties of nodes that exporters use: full name, numbers of one scenario, bound, shape of the result."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import networkx as nx
import numpy as np

from graphsim.cost.base import BOUNDS, Cost
from graphsim.errors import ConfigError, GraphError
from graphsim.graph.sound import require_sound
from graphsim.ops import (
    Attention,
    Gemm,
    KvCache,
    Op,
    Repeat,
    Rope,
)
from graphsim.ops.type_guards import is_collective
from graphsim.units import Num, checked_scenario, short

if TYPE_CHECKING:
    from graphsim.ops import Collective


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Entry:
    """A node with its full name: the name itself, or `repeat.node` inside a repeat.

    label: the name within its own repeat
    times: number of runs, the product over all enclosing repeats
    """

    name: str
    label: str
    op: Op
    data: dict[str, Any]
    times: int


def entries(graph: nx.DiGraph, times: int = 1, prefix: str = "") -> Iterator[Entry]:
    """All operations in launch order; a repeat yields the operations of its body, not itself."""
    for name, data in graph.nodes(data=True):
        op = op_of(name, data)
        if isinstance(op, Repeat):
            yield from entries(op.body, times * op.times, f"{prefix}{name}.")
        else:
            yield Entry(name=f"{prefix}{name}", label=name, op=op, data=data, times=times)


def op_of(name: object, data: dict[str, Any]) -> Op:
    """The operation of a node. Raises GraphError if it has none."""
    op = data.get("op")
    if not isinstance(op, Op):
        raise GraphError(f"node '{name}' carries no op")
    return op


def require(what: str, found: object, *kinds: type) -> None:
    """Raise ConfigError if an exporter's argument has another type than it takes, GraphError for an invalid graph.

    kinds: accepted types; a graph is accepted only if `networkx.DiGraph` is among them
    """
    if not isinstance(found, kinds):
        known = {"DiGraph": "graph (such as estimate.prefill.graph)"}
        names = " or ".join(known.get(kind.__name__, kind.__name__) for kind in kinds)
        raise ConfigError(f"{what} takes one {names}, found {type(found).__name__}")
    if isinstance(found, nx.DiGraph):
        require_sound(found)


def number(value: Num, scenario: int = 0) -> float:
    """The value for one scenario. Raises ConfigError if there is no such scenario."""
    array = np.ravel(np.asarray(value, dtype=float))
    if array.size == 1:
        return float(array[0])
    return float(array[checked_scenario(scenario, array.size)])


def bound_of(data: dict[str, Any], scenario: int = 0) -> str:
    """The resource that limits a priced node, one of BOUNDS; "" if the node has no price."""
    if "cost" in data:
        cost = data["cost"]
        if not isinstance(cost, Cost):
            raise GraphError(f"a node has cost = {short(cost)}; expected a Cost, as annotate writes it")
        return BOUNDS[int(number(cost.bound_index, scenario))]
    return str(data.get("bound", ""))


def is_critical(data: dict[str, Any], scenario: int = 0) -> bool | None:
    """Whether a scheduled node is on the critical path; None if it is not scheduled."""
    return bool(number(data["critical"], scenario)) if "critical" in data else None


def number_text(value: float) -> str:
    """A count for display: exact up to six digits, then with an SI prefix."""
    if value != value or abs(value) == np.inf:
        return str(value)
    if abs(value) >= 1e6:
        for factor, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M")):
            if abs(value) >= factor:
                return f"{value / factor:.3g} {prefix}"
    return f"{value:.0f}" if value == round(value) else f"{value:.4g}"


def dims_text(op: Op, scenario: int = 0) -> str:
    """The dimensions by name: `m=512 n=4096 k=4096`."""
    return " ".join(f"{name}={number(value, scenario):.12g}" for name, value in op.dims().items())


Shape = tuple[float, ...]


def shape_of(op: Op, parts: tuple[str, ...] = (), rows: float = 0.0, scenario: int = 0) -> Shape:
    """The shape of an op's result, or of parts of it; its element count always equals that of the result.

    rows: number of rows of the input, for ops that state only their element count; 0 if unknown
    """
    sizes = op.out_parts
    whole = op.out_elems
    elems = number(sum((sizes[p] for p in parts if p in sizes), start=0.0) if parts else whole, scenario)
    rows = _rows(op, elems, scenario) or rows
    heads = _heads(op, parts, scenario)
    if heads and rows and np.isclose(rows * heads[0] * heads[1], elems):
        return (rows, *heads)
    width = elems / rows if rows else 0.0
    if rows and width >= 1.0 and np.isclose(width, round(width)):
        return (rows, float(round(width))) if width > 1.0 else (rows,)
    return (elems,)


def _rows(op: Op, elems: float, scenario: int) -> float:
    """Number of rows of the result, if the op states its rows or their width."""
    if op.out_rows is not None:
        return number(op.out_rows, scenario)
    width = number(getattr(op, "width", 0.0), scenario)
    return elems / width if width else 0.0


def _heads(op: Op, parts: tuple[str, ...], scenario: int) -> Shape:
    """Number of heads and head dimension, if the value has heads."""
    if isinstance(op, KvCache):
        return number(op.kv_heads, scenario), number(op.width, scenario)
    if isinstance(op, Attention):
        return number(op.heads, scenario), number(op.value_dim, scenario)
    if isinstance(op, Rope) and len(parts) == 1:
        return number(op.heads if parts == ("q",) else op.kv_heads, scenario), number(op.head_dim, scenario)
    return ()


def shapes(graph: nx.DiGraph, scenario: int = 0, incoming: float = 0.0) -> dict[tuple[str, str], Shape]:
    """The shape on every edge of one graph (not inside repeats).

    incoming: number of rows at the graph's inputs
    """
    found: dict[tuple[str, str], Shape] = {}
    rows: dict[str, float] = {}
    for name, op in graph.nodes(data="op"):
        arriving = max((rows[p] for p in graph.predecessors(name) if rows[p]), default=incoming)
        if is_collective(op):
            arriving = _rows_behind(graph, name, op, arriving, scenario)
        rows[name] = arriving if isinstance(op, Repeat) else shape_of(op, rows=arriving, scenario=scenario)[0]
        for source in graph.predecessors(name):
            found[source, name] = shape_of(
                graph.nodes[source]["op"], graph.edges[source, name].get("parts", ()), rows[source], scenario
            )
    return found


def _rows_behind(graph: nx.DiGraph, name: str, op: Collective, arriving: float, scenario: int) -> float:
    """Rows of a collective's result for those that arrive."""
    from graphsim.ops import AllGather, ReduceScatter

    if isinstance(op, ReduceScatter):  # splits the tokens
        return arriving / number(op.group, scenario)
    if isinstance(op, AllGather):  # concatenates tokens or features; its users state which
        return _rows_wanted(graph, name, op, scenario) or arriving
    return arriving


def _rows_wanted(graph: nx.DiGraph, name: str, op: Op, scenario: int) -> float:
    """Rows that a user of a value states, if its element count equals that of the value; else 0."""
    elems = number(op.out_elems, scenario)
    for user in graph.successors(name):
        taker = graph.nodes[user]["op"]
        rows = taker.m if isinstance(taker, Gemm) else getattr(taker, "rows", None)
        if rows is not None and taker.in_elems is not None and np.isclose(number(taker.in_elems, scenario), elems):
            return number(rows, scenario)
    return 0.0


def shape_text(shape: Shape) -> str:
    """`512 × 4096`."""
    return " × ".join(number_text(size) for size in shape)
