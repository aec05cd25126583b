"""A training graph in the order of its step: the part before the layers, each run of layers, and the head."""

from __future__ import annotations

from collections.abc import Container, Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import networkx as nx

from graphsim.ops import Direction, Input, Op, Repeat

BACKWARD = ".backward"
"""Suffix of the backward repeat of a repeat."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Section:
    """Turns of one body, or the nodes between repeats.

    name: of the repeat; `stem`, `between_1`, `head` otherwise, with `.backward` in the backward pass
    graph: one turn
    times: turns
    """

    name: str
    graph: nx.DiGraph
    times: int = 1
    repeated: bool = False
    backward: bool = False

    @property
    def of(self) -> str:
        """The name of the forward section."""
        return self.name.removesuffix(BACKWARD)

    def ops(self) -> Iterator[tuple[str, Op]]:
        """Nodes with their operations, in launch order."""
        return iter(self.graph.nodes(data="op"))


def sections_of(graph: nx.DiGraph) -> list[Section]:
    """Sections in launch order; the end of the step (`Direction.UPDATE`) does not count."""
    names: dict[bool, list[str]] = {False: [], True: []}
    for name, op in graph.nodes(data="op"):
        if (direction := direction_of(op)) is not Direction.UPDATE:
            names[direction is not Direction.FORWARD].append(name)
    forward = list(_forward(graph, names[False]))
    return [*forward, *_backward(graph, names[True], {name: one.name for one in forward for name in one.graph})]


def direction_of(op: Op) -> Direction:
    """The direction of a node; for a repeat, that of its last node."""
    while isinstance(op, Repeat):
        op = op.body.nodes[op.result]["op"]
    return op.direction


def _forward(graph: nx.DiGraph, names: list[str]) -> Iterator[Section]:
    """Repeats, and the nodes between them."""
    groups = [(repeated, list(run)) for repeated, run in groupby(names, lambda n: isinstance(_op(graph, n), Repeat))]
    for place, (repeated, run) in enumerate(groups):
        if repeated:
            yield from (_turns(graph, name, backward=False) for name in run)
            continue
        last = place == len(groups) - 1
        title = "head" if last else "stem" if place == 0 else f"between_{place // 2}"
        yield Section(name=title, graph=part_of(graph, run))


def _backward(graph: nx.DiGraph, names: list[str], whose: dict[str, str]) -> Iterator[Section]:
    """The same of the backward pass; nodes outside repeats belong to the section whose operations' gradients they
    compute.

    whose: the section of each operation of the forward pass
    """
    runs: dict[str, list[str]] = {}
    current = "head"
    for name in names:
        if isinstance(_op(graph, name), Repeat):
            runs[name] = []
            continue
        current = whose.get(_forward_of(name, whose), current)
        runs.setdefault(current + BACKWARD, []).append(name)
    for name, run in runs.items():
        if run:
            yield Section(name=name, graph=part_of(graph, run), backward=True)
        else:
            yield _turns(graph, name, backward=True)


def _forward_of(name: str, known: Container[str]) -> str:
    """The operation whose gradient, kept value or recomputation a node is: `norm` of `norm.dgrad`."""
    name = name.removeprefix("recompute.")
    while name and name not in known:
        name = name.rpartition(".")[0]
    return name


def _op(graph: nx.DiGraph, name: str) -> Op:
    op: Op = graph.nodes[name]["op"]
    return op


def _turns(graph: nx.DiGraph, name: str, *, backward: bool) -> Section:
    op: Any = _op(graph, name)
    return Section(name=name, graph=op.body, times=op.times, repeated=True, backward=backward)


def part_of(graph: nx.DiGraph, names: list[str]) -> nx.DiGraph:
    """Some nodes of a graph as a separate graph; values from other nodes become inputs."""
    out, own = nx.DiGraph(), set(names)
    for name in names:
        for source in graph.predecessors(name):
            if source not in own and source not in out:
                op: Op = graph.nodes[source]["op"]
                out.add_node(source, op=Input(elems=op.out_elems, activations=op.activations))
    for name in names:
        out.add_node(name, **graph.nodes[name])
        out.add_edges_from((source, name, graph.edges[source, name]) for source in graph.predecessors(name))
    return out
