"""Which operations decide the latency: slack of every node, and the critical path.

Slack is the schedule's recursion backwards, in min-plus arithmetic: how much later a node could finish without
delaying the end. Inside a repeat, times and slack are those of its middle iteration.
"""

from __future__ import annotations

from dataclasses import replace
from functools import reduce
from typing import Any

import networkx as nx
import numpy as np

from graphsim.brief import figures_text
from graphsim.errors import GraphError
from graphsim.graph.schedule import (
    DATA,
    State,
    Transfer,
    apply,
    enters,
    forward,
    initial_state,
    latest,
    power,
    transfer,
)
from graphsim.graph.sound import PLACED, require_sound
from graphsim.ops import Repeat
from graphsim.ops.structure import last_node
from graphsim.units import Num, checked_scenario

Times = dict[str, tuple[Num, Num]]
"""Start and finish of each node."""

TOLERANCE = 1e-9
"""Slack below this part of the whole counts as none: sums in another order differ in the last digits."""


class CriticalPath(tuple[str, ...]):
    """Names of the nodes that decide the latency, in order; `latency_s` is the path's length."""

    latency_s: Num
    graph: nx.DiGraph

    def __repr__(self) -> str:
        ends = f"{self[0]} … {self[-1]}" if len(self) > 1 else "".join(self)
        return figures_text("CriticalPath", {"latency_s": self.latency_s}, f"{len(self)} operations", ends)

    @classmethod
    def of(cls, names: list[str], graph: nx.DiGraph) -> CriticalPath:
        """The path through a scheduled graph."""
        path = cls(names)
        path.graph, path.latency_s = graph, graph.graph["latency_s"]
        return path


def schedule(graph: nx.DiGraph) -> nx.DiGraph:
    """A copy of an annotated graph with `start_s`, `finish_s`, `slack_s` and `critical` on every node.

    The graph itself carries `latency_s`, the end of the last operation. One-time nodes get no times.
    """
    if not len(graph):
        raise GraphError("the graph has no nodes, so nothing can be scheduled")
    out = _copy(graph)
    start = initial_state(out)
    times: Times = {}
    whole = out.graph["latency_s"] = latest(forward(out, start, times).values())
    _place(out, start, dict.fromkeys(start, whole), 0.0, whole, times)
    return out


def critical_path(graph: nx.DiGraph, scenario: int = 0) -> CriticalPath:
    """The chain of operations that determines the latency, over data and stream edges.

    graph: annotated or scheduled
    scenario: index of the scenario, where numbers are arrays
    Nodes inside a repeat appear as `repeat.node`, once.
    Raises GraphError if the graph is not valid or a node has no latency, ConfigError if there is no such scenario.
    """
    return path_of(require_sound(graph), scenario)


def path_of(graph: nx.DiGraph, scenario: int = 0) -> CriticalPath:
    """As `critical_path`, for a graph that is known to be sound."""
    scheduled = graph if _is_scheduled(graph) else schedule(graph)
    held = np.size(scheduled.graph["latency_s"])
    if held > 1:
        scenario = checked_scenario(scenario, held)
    return CriticalPath.of(_trace(scheduled, scenario, ""), scheduled)


def _is_scheduled(graph: nx.DiGraph) -> bool:
    """Whether every node except one-time ones is scheduled, which holds until a node is added or a time removed."""
    return "latency_s" in graph.graph and _is_placed(graph)


def _is_placed(graph: nx.DiGraph) -> bool:
    steady = [data for _, data in graph.nodes(data=True) if not data["op"].once]
    bodies = (data["op"].body for data in steady if isinstance(data["op"], Repeat))
    return all(key in data for data in steady for key in PLACED) and all(map(_is_placed, bodies))


def _copy(graph: nx.DiGraph) -> nx.DiGraph:
    out = nx.DiGraph()
    out.graph.update(graph.graph)
    for name, data in graph.nodes(data=True):
        op = data["op"]
        out.add_node(name, **data)
        if isinstance(op, Repeat):
            out.nodes[name]["op"] = replace(op, body=_copy(op.body))
    out.add_edges_from(graph.edges(data=True))
    return out


def _place(graph: nx.DiGraph, before: State, after: State, origin: Num, whole: Num, times: Times) -> State:
    """Write times and slack; `after` states when each part of the final state is needed.

    times: start and finish of every node. Returns when each part of the initial state is needed.
    """
    states = _states(graph, before, times)
    late = dict(after)
    needed: dict[str, Num] = {}
    result = last_node(graph)
    source: Num = np.inf
    for name in reversed(list(times)):
        node = graph.nodes[name]
        users = [needed[f"{name}>{user}"] for user in graph.successors(name) if f"{name}>{user}" in needed]
        limit = reduce(np.minimum, users, late[DATA] if name == result else np.inf)
        limit = np.minimum(limit, np.inf if isinstance(node["op"], Repeat) else late[node["op"].stream])
        if isinstance(node["op"], Repeat):
            wanted, limit = _place_repeat(node, states[name], late, limit, whole)
            late = late | {key: value for key, value in wanted.items() if key != DATA}
            ready = wanted[DATA]
        else:
            ready = limit - node["latency_s"]
            late[node["op"].stream] = ready
        begin, finish = times[name]
        slack = limit - finish
        node.update(start_s=begin - origin, finish_s=finish - origin, slack_s=slack)
        node["critical"] = slack <= TOLERANCE * whole
        parents = [p for p in graph.predecessors(name) if p in times]
        for parent in parents:
            needed[f"{parent}>{name}"] = ready
        if not parents and enters(node["op"]):
            source = np.minimum(source, ready)
    return late | {DATA: source}


def _states(graph: nx.DiGraph, before: State, times: Times) -> dict[str, State]:
    """The state before each repeat."""
    if not any(isinstance(op, Repeat) for _, op in graph.nodes(data="op")):
        return {}
    states, state = dict[str, State](), dict(before)
    for name, (begin, finish) in times.items():
        op = graph.nodes[name]["op"]
        if isinstance(op, Repeat):
            states[name] = state | {DATA: begin}
            state = state | apply(power(transfer(op.body), op.times), states[name])
        else:
            state[op.stream] = finish
    return states


def _place_repeat(node: dict[str, Any], state: State, late: State, limit: Num, whole: Num) -> tuple[State, Num]:
    op: Repeat = node["op"]
    matrix = transfer(op.body)
    before, after = {key: state[key] for key in matrix}, {key: late[key] for key in matrix} | {DATA: limit}
    middle = op.times // 2
    entry = before if middle == 0 else apply(power(matrix, middle), before)
    rest = op.times - 1 - middle
    wanted = after if rest == 0 else _backward(power(matrix, rest), after)
    times: Times = {}
    forward(op.body, entry, times)
    _place(op.body, entry, wanted, entry[DATA], whole, times)
    out = apply(power(matrix, op.times), before)
    node["latency_s"] = out[DATA] - state[DATA]
    slack = reduce(np.minimum, [after[key] - out[key] for key in matrix])
    return _backward(power(matrix, op.times), after), out[DATA] + slack


def _backward(matrix: Transfer, after: State) -> State:
    """The latest time for each part of the incoming state, such that the block's final state is in time."""
    return {before: reduce(np.minimum, [after[key] - matrix[key][before] for key in matrix]) for before in matrix}


def _trace(graph: nx.DiGraph, scenario: int, prefix: str) -> list[str]:
    """Walk back from the operation that ends last, each time to the one that it waited for.

    If all of these ended earlier, a repeat's streams were still busy, for which its result does not wait.
    """
    at = {name: _times_at(node, scenario) for name, node in graph.nodes(data=True) if "start_s" in node}
    previous = _previous_on_stream(graph)
    critical = [name for name in at if bool(np.ravel(_at(graph.nodes[name]["critical"], scenario))[0])]
    current: str | None = max(critical or at, key=lambda name: at[name][1], default=None)
    names: list[str] = []  # from the end; reversed once it is complete
    while current is not None:
        op = graph.nodes[current]["op"]
        nested = _trace(op.body, scenario, f"{prefix}{current}.") if isinstance(op, Repeat) else [f"{prefix}{current}"]
        names += reversed(nested)
        begin = at[current][0]
        waited = [p for p in [*graph.predecessors(current), *previous.get(current, [])] if p in at]
        current = max((p for p in waited), key=lambda p: at[p][1], default=None)
        if current is not None and at[current][1] < begin - TOLERANCE * max(abs(begin), 1e-12):
            current = next((p for p in waited if isinstance(graph.nodes[p]["op"], Repeat)), None)
    return names[::-1]


def _previous_on_stream(graph: nx.DiGraph) -> dict[str, list[str]]:
    last, previous = dict[str, str](), dict[str, list[str]]()
    for name, op in graph.nodes(data="op"):
        used = [op.stream] if not isinstance(op, Repeat) else list(transfer_keys(op))
        if not op.once:
            previous[name] = [last[stream] for stream in used if stream in last]
            last.update(dict.fromkeys(used, name))
    return previous


def transfer_keys(op: Repeat) -> list[str]:
    """The streams that a repeat's body uses."""
    return [key for key in initial_state(op.body) if key != DATA]


def _times_at(node: dict[str, Any], scenario: int) -> tuple[float, float]:
    return float(_at(node["start_s"], scenario)), float(_at(node["finish_s"], scenario))


def _at(value: Num, scenario: int) -> Any:
    array = np.asarray(value)
    return array if array.ndim == 0 else array[min(scenario, len(array) - 1)]
