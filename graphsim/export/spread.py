"""An annotated graph with every iteration of every repeat unrolled and scheduled, for timelines and replays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import networkx as nx

from graphsim.display.nodes import number, op_of
from graphsim.graph.critical import schedule
from graphsim.graph.rewriting import require_spelled_out
from graphsim.ops import Input, Op, Repeat
from graphsim.ops.structure import last_node


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Turn:
    """One run of one operation in one scenario.

    label: the node's own name
    turns: (full name of the repeat, iteration) of each enclosing repeat, outermost first
    inputs: names of the runs whose results it uses
    """

    name: str
    label: str
    op: Op
    data: dict[str, Any]
    turns: tuple[tuple[str, int], ...]
    inputs: tuple[str, ...]
    start_s: float
    finish_s: float
    critical: bool

    @property
    def latency_s(self) -> float:
        """Seconds from start to end."""
        return self.finish_s - self.start_s


@dataclass(frozen=True, slots=True)
class _Origin:
    label: str
    turns: tuple[tuple[str, int], ...]


def runs_of(graph: nx.DiGraph, scenario: int = 0) -> list[Turn]:
    """All runs of a step in launch order, with exact times of one scenario; one-time nodes are left out.

    graph: an annotated graph
    Raises GraphError if a node has no latency, or if there are too many runs to list.
    """
    require_spelled_out(graph)
    spread, origins = _spread(graph)
    if not len(spread):
        return []
    timed = schedule(spread)
    return [
        Turn(
            name=name,
            label=origins[name].label,
            op=data["op"],
            data=data,
            turns=origins[name].turns,
            inputs=tuple(p for p in timed.predecessors(name) if not timed.nodes[p]["op"].once),
            start_s=number(data["start_s"], scenario),
            finish_s=number(data["finish_s"], scenario),
            critical=bool(number(data["critical"], scenario)),
        )
        for name, data in timed.nodes(data=True)
        if not data["op"].once
    ]


def _spread(graph: nx.DiGraph) -> tuple[nx.DiGraph, dict[str, _Origin]]:
    out = nx.DiGraph()
    origins: dict[str, _Origin] = {}
    ends: dict[str, str] = {}
    for name, data in graph.nodes(data=True):
        op = op_of(name, data)
        inputs = [(ends[p], graph.edges[p, name].get("parts", ())) for p in graph.predecessors(name)]
        if not isinstance(op, Repeat):
            ends[name] = _add(out, name, data, inputs)
            origins[name] = _Origin(name, ())
            continue
        inner, found = _spread(op.body)
        for turn in range(op.times):
            _copy_turn(out, inner, f"{name}.{turn}.", inputs)
            for node, origin in found.items():
                nested = tuple((f"{name}.{turn}.{repeat}", i) for repeat, i in origin.turns)
                origins[f"{name}.{turn}.{node}"] = _Origin(origin.label, ((name, turn), *nested))
            inputs = [(f"{name}.{turn}.{last_node(inner)}", ())]
        ends[name] = inputs[0][0]
    return out, origins


def _copy_turn(out: nx.DiGraph, body: nx.DiGraph, prefix: str, inputs: list[tuple[str, tuple[str, ...]]]) -> None:
    for node, data in body.nodes(data=True):
        own = [(prefix + p, body.edges[p, node].get("parts", ())) for p in body.predecessors(node)]
        _add(out, prefix + node, data, own if own or not isinstance(data["op"], Input) else inputs)


def _add(out: nx.DiGraph, name: str, data: dict[str, Any], inputs: list[tuple[str, tuple[str, ...]]]) -> str:
    out.add_node(name, **{key: value for key, value in data.items() if not key.endswith(("start_s", "finish_s"))})
    for source, parts in inputs:
        out.add_edge(source, name, parts=parts)
    return name
