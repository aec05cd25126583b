"""A graph flattened for drawing: repeats expanded, nodes in nested groups, every edge with its shape."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace

import networkx as nx

from graphsim.display.nodes import Entry, Shape, number, op_of, shapes
from graphsim.graph.critical import path_of, schedule
from graphsim.ops import Collective, Op, PipelineStage, Repeat
from graphsim.ops.structure import last_node

_TURN = re.compile(r"(.+?\.(\d+))\.(?=.)", re.DOTALL)
"""Prefix that `unroll` gives to the nodes of one iteration of a repeat; iterations share their operations, which are
priced once, so that only the names distinguish them."""


BACKWARD = ".backward"
"""The suffix that names the backward pass of a repeat."""


@dataclass(frozen=True, slots=True)
class Group:
    """A box around nodes.

    repeat: the Repeat that it represents, if any
    """

    key: str
    label: str
    repeat: Repeat | None = field(default=None, compare=False)
    latency_s: float | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Edge:
    """A value passed between operations, or with `stream` a wait on the critical path for the end of another operation.

    shape: of the value; empty if it has no elements, as for a pure ordering dependency
    upwards: whether the edge points upwards in a picture drawn from top to bottom
    """

    source: str
    target: str
    parts: tuple[str, ...] = ()
    shape: Shape = ()
    critical: bool = False
    stream: bool = False
    upwards: bool = False


@dataclass(frozen=True, slots=True)
class Flat:
    """Nodes by full name with the groups around each, outermost first; edges; the critical path, if scheduled."""

    nodes: dict[str, Entry]
    groups: dict[str, tuple[Group, ...]]
    edges: list[Edge]
    path: tuple[str, ...]
    latency_s: float | None
    caution: str = ""


def flatten(graph: nx.DiGraph, scenario: int = 0) -> Flat:
    """The graph with all repeats expanded. Collectives over one device, which do nothing, are left out.

    An annotated graph is scheduled first if it is not scheduled yet.
    """
    for name, data in graph.nodes(data=True):
        op_of(name, data)
    if "latency_s" not in graph.graph and any("latency_s" in data for _, data in graph.nodes(data=True)):
        graph = schedule(graph)
    opened = _Opened(scenario)
    if len(graph):
        opened.open(graph, "", (), 1)
    latency = graph.graph.get("latency_s")
    path = () if latency is None else tuple(n for n in path_of(graph, scenario) if n in opened.nodes)
    return Flat(
        nodes=opened.nodes,
        groups=opened.groups,
        edges=_on_path(opened.edges, path),
        path=path,
        latency_s=None if latency is None else number(latency, scenario),
        caution=graph.graph.get("caution", ""),
    )


def _on_path(edges: list[Edge], path: tuple[str, ...]) -> list[Edge]:
    """The edges with the critical path marked, and its waits on streams added as edges."""
    steps = set(zip(path, path[1:], strict=False))
    drawn = {(edge.source, edge.target) for edge in edges}
    marked = [Edge(e.source, e.target, e.parts, e.shape, critical=(e.source, e.target) in steps) for e in edges]
    waits = [step for step in zip(path, path[1:], strict=False) if step not in drawn]
    return marked + [Edge(source, target, critical=True, stream=True) for source, target in waits]


class _Opened:
    """Collects nodes, groups and edges while repeats are expanded."""

    def __init__(self, scenario: int) -> None:
        self.scenario = scenario
        self.nodes: dict[str, Entry] = {}
        self.groups: dict[str, tuple[Group, ...]] = {}
        self.edges: list[Edge] = []

    def open(
        self, graph: nx.DiGraph, prefix: str, around: tuple[Group, ...], times: int, rows: float = 0.0
    ) -> tuple[list[str], str]:
        """Add a graph's nodes; returns the nodes at which values enter and the node of its result."""
        ends: dict[str, str] = {}
        along = shapes(graph, self.scenario, rows)
        entries: list[str] = []
        for name, data in graph.nodes(data=True):
            op = op_of(name, data)
            sources = list(graph.predecessors(name))
            if len(sources) == 1 and _is_idle(op, self.scenario):
                ends[name] = ends[sources[0]]
                continue
            arriving = max((along[source, name][0] for source in sources), default=rows)
            if isinstance(op, Repeat):
                outer, label = _named_groups(prefix, name, op.stage)
                group = _repeat_group(prefix + name, label, op, data.get("latency_s"), self.scenario)
                inside = (*around, *outer, group)
                targets, ends[name] = self.open(op.body, f"{prefix}{name}.", inside, times * op.times, arriving)
            else:
                targets, ends[name] = [prefix + name], prefix + name
                self._node(Entry(name=prefix + name, label=name, op=op, data=data, times=times), around, prefix)
            if not sources and not op.once:
                entries += targets
            for source in sources:
                parts = graph.edges[source, name].get("parts", ())
                shape = along[source, name] if all(along[source, name]) else ()
                self.edges += [Edge(ends[source], target, parts, shape) for target in targets]
        return entries, ends[last_node(graph)]

    def _node(self, entry: Entry, around: tuple[Group, ...], prefix: str) -> None:
        inside = around[-1].repeat if around else None
        extra, label = _named_groups(prefix, entry.label, entry.op.stage)
        if inside is not None and inside.layers > 1:
            first = inside.first_layer + entry.op.layer
            every = f", every {inside.layers}" if inside.times > 1 else ""
            extra.append(Group(f"{prefix}/{entry.op.layer}", f"layer {first}{every}"))
            label = label.removeprefix(f"{entry.op.layer}.")
        self.nodes[entry.name] = replace(entry, label=label)
        self.groups[entry.name] = (*around, *extra)


def _is_idle(op: Op, scenario: int) -> bool:
    return isinstance(op, Collective) and number(op.group, scenario) <= 1


def _repeat_group(key: str, label: str, op: Repeat, latency: object, scenario: int) -> Group:
    last = op.first_layer + op.times * op.layers - 1
    layers = f"layers {op.first_layer} to {last}" if last > op.first_layer else f"layer {op.first_layer}"
    seconds = None if latency is None else number(latency, scenario)  # type: ignore[arg-type]
    if op.role.endswith(BACKWARD):
        return Group(key, f"{layers}, backward", op, seconds)
    return Group(key, layers if op.role == "layers" else label, op, seconds)


def _named_groups(prefix: str, name: str, stage: PipelineStage | None) -> tuple[list[Group], str]:
    """Groups of a node of an unrolled graph (pipeline stage, iteration of a repeat), and the rest of its name."""
    groups = []
    if stage is not None and name.startswith(stage.prefix):
        key = prefix + stage.prefix
        groups.append(Group(key.removesuffix("."), f"stage {stage.number}, micro-batch {stage.micro_batch}"))
        prefix, name = key, name.removeprefix(stage.prefix)
    turn = _TURN.match(name)
    if turn:
        groups.append(Group(prefix + turn[1], turn[1]))
        name = name[turn.end() :]
    return groups, name
