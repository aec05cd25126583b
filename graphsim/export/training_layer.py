"""One layer of a training step for pictures: forward and backward, without launches, further kernels merged."""

from __future__ import annotations

from dataclasses import dataclass, replace

import networkx as nx

from graphsim.display.nodes import number, op_of
from graphsim.ops import KeptValue, Launch, Op, Repeat
from graphsim.ops.modules import ModuleSteps

BACKWARD = ".backward"


@dataclass(frozen=True, slots=True)
class LayerPair:
    """A run of equal layers: the names of its forward repeat and of its backward repeat, if there is one."""

    forward: str
    backward: str | None


def pairs_of(graph: nx.DiGraph) -> list[LayerPair]:
    """Runs of equal layers, those with the most iterations first, then in launch order."""
    repeats = [name for name, data in graph.nodes(data=True) if isinstance(data["op"], Repeat)]
    found = [
        LayerPair(name, name + BACKWARD if name + BACKWARD in repeats else None)
        for name in repeats
        if not name.endswith(BACKWARD)
    ]
    return sorted(found, key=lambda pair: -graph.nodes[pair.forward]["op"].times)


def layer_graph(graph: nx.DiGraph, pair: LayerPair) -> nx.DiGraph:
    """The graph of a priced step reduced to its forward and backward repeat, and simplified by `plain`."""
    found = nx.DiGraph()
    for name in (pair.forward, pair.backward):
        if name is not None:
            op = graph.nodes[name]["op"]
            found.add_node(name, op=replace(op, body=plain(op.body)))
    if pair.backward is not None:
        found.add_edge(pair.forward, pair.backward)
    return found


def plain(graph: nx.DiGraph) -> nx.DiGraph:
    """The graph without host launches, with the further kernels of a module added to the time of their operation."""
    kept = nx.DiGraph()
    extra_s: dict[str, float] = {}
    for name, data in graph.nodes(data=True):
        op = op_of(name, data)
        if isinstance(op, ModuleSteps):
            for user in graph.successors(name):
                if not _is_extra(graph.nodes[user]["op"]):
                    extra_s[user] = extra_s.get(user, 0.0) + number(data.get("latency_s", 0.0))
        elif isinstance(op, Repeat):
            kept.add_node(name, op=replace(op, body=plain(op.body)))
        elif not _is_extra(op):
            kept.add_node(name, **{key: data[key] for key in ("op", "cost", "latency_s", "bound") if key in data})
    for name, seconds in extra_s.items():
        kept.nodes[name]["latency_s"] = kept.nodes[name].get("latency_s", 0.0) + seconds
    kept.add_edges_from(edge for edge in graph.edges(data=True) if edge[0] in kept and edge[1] in kept)
    return kept


def _is_extra(op: Op) -> bool:
    return isinstance(op, Launch | ModuleSteps)


def kept_from(graph: nx.DiGraph, pair: LayerPair) -> list[tuple[str, str]]:
    """Pairs of full names: the producer in the forward layer, and its saved value in the backward layer."""
    if pair.backward is None:
        return []
    made = graph.nodes[pair.forward]["op"].body
    found = []
    for name, op in graph.nodes[pair.backward]["op"].body.nodes(data="op"):
        if isinstance(op, KeptValue) and not op.again:
            producer = op.of.removeprefix(f"{pair.forward}.")
            if producer in made:
                found.append((f"{pair.forward}.{producer}", f"{pair.backward}.{name}"))
    return found
