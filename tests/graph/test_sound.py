"""A graph that somebody else made is worked on, or a sentence says why not; each fault here stands for its kind."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from typing import Any

import networkx as nx
import numpy as np
import pytest

import graphsim as gs
from graphsim.display.operators import frame_of
from graphsim.export.node_link import from_json, to_json
from graphsim.graph import add
from graphsim.graph.sound import MOST_TURNS
from graphsim.ops import Gemm, Input, Norm, Repeat


def body() -> nx.DiGraph:
    graph = nx.DiGraph()
    add(graph, "x", Input(elems=64.0))
    add(graph, "norm", Norm(rows=8.0, width=8.0), ["x"])
    add(graph, "up", Gemm(m=8.0, n=8.0, k=8.0), ["norm"])
    return graph


def with_edge(source: str, target: str, **data: Any) -> nx.DiGraph:
    graph = body()
    graph.add_edge(source, target, **data)
    return graph


def with_up(**fields: Any) -> nx.DiGraph:
    graph = body()
    graph.nodes["up"]["op"] = replace(graph.nodes["up"]["op"], **fields)
    return graph


def with_repeat(inner: nx.DiGraph, times: Any = 2) -> nx.DiGraph:
    graph = nx.DiGraph()
    graph.add_node("layers", op=Repeat(body=inner, times=times))
    return graph


def in_itself() -> nx.DiGraph:
    graph = body()
    graph.add_node("again", op=Repeat(body=graph, times=2))
    return graph


def deep(levels: int) -> nx.DiGraph:
    graph = body()
    for _ in range(levels):
        graph = with_repeat(graph, 1)
    return graph


def named(name: Any, **data: Any) -> nx.DiGraph:
    graph = body()
    graph.add_node(name, **data)
    return graph


UNSOUND: dict[str, tuple[nx.DiGraph, str]] = {
    "no graph": (None, "graph = None is not a networkx.DiGraph"),  # type: ignore[dict-item]
    "several edges between two nodes": (nx.MultiDiGraph(body()), "graph = a MultiDiGraph is not a networkx.DiGraph"),
    "a cycle": (with_edge("up", "norm"), "node 'norm' is launched before its input 'up'"),
    "a self-loop": (with_edge("up", "up"), "node 'up' takes its own result as input"),
    "parts that are no names": (with_edge("x", "up", parts=3), "edge 'x' -> 'up' has parts = 3; expected a tuple"),
    "a part that is not there": (with_edge("x", "up", parts=("q",)), "takes part 'q', which its source does not have"),
    "no operation": (named("bare"), "node 'bare' carries no op"),
    "a text for an operation": (named("bare", op="gemm"), "node 'bare' carries no op"),
    "a number for a name": (named(3, op=Norm(rows=8.0, width=8.0)), "node 3 has a name that is not a string"),
    "less than nothing": (with_up(m=-8.0), "node 'up' has m = -8.0; allowed: finite numbers from 0 to 1e"),
    "no number": (with_up(k=float("nan")), "node 'up' has k = nan; allowed: finite numbers"),
    "infinity": (with_up(n=np.array([1.0, np.inf])), "node 'up' has n = array.*; allowed: finite numbers"),
    "more than any machine holds": (with_up(n=10**400), "node 'up' has n = 1000.*; allowed: finite numbers"),
    "no scenarios": (with_up(n=np.array([])), "node 'up' has n = array.*one or a row over scenarios"),
    "a table of scenarios": (with_up(n=np.ones((2, 2))), "node 'up' has n = array.*one or a row over scenarios"),
    "scenarios of two lengths": (with_up(m=np.ones(2), n=np.ones(3)), "over 3 scenarios, but other numbers have 2"),
    "a text for a number": (with_up(m="8"), "node 'up' has m = '8'; expected a number"),
    "a number for a format": (with_up(activations=16), "node 'up' has activations = 16; expected a Format"),
    "a list for a stream": (with_up(stream=["compute"]), r"has stream = \['compute'\]; expected a text"),
    "a line break in a name": (named("a\nb"), r"node 'a\\nb' carries no op"),
    "a repeat in itself": (in_itself(), "the body of 'again' holds itself"),
    "repeats too deep": (deep(60), "lies more than 40 repeats deep"),
    "no turns": (with_repeat(body(), 0), "repeats its body 0 times; allowed: 1 to"),
    "more turns than time": (with_repeat(body(), MOST_TURNS + 1), "times; allowed: 1 to 1,000,000,000"),
    "an empty body": (with_repeat(nx.DiGraph()), "repeats a body without nodes"),
    "a fault in a body": (with_repeat(with_up(m=-1.0)), "node 'layers.up' has m = -1.0"),
    "a latency that is none": (named("late", op=Norm(rows=8.0, width=8.0), latency_s="soon"), "latency_s = 'soon'"),
    "a latency below nothing": (named("late", op=Norm(rows=8.0, width=8.0), latency_s=-1.0), "latency_s = -1.0"),
}  # fmt: skip

VERBS = {
    "annotate": lambda graph: gs.annotate(graph, "l4"), "critical_path": gs.critical_path, "total_work": gs.total_work,
    "validate": gs.validate, "unroll": gs.unroll, "to_text": gs.to_text,
}  # fmt: skip


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("name", UNSOUND)
def test_a_graph_that_is_not_sound_is_told(name: str, verb: str) -> None:
    graph, expected = UNSOUND[name]
    with pytest.raises(gs.GraphError, match=expected) as caught:
        VERBS[verb](graph)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", [name for name in UNSOUND if name != "no graph"])
def test_exporters_take_it_no_more_than_verbs(name: str) -> None:
    graph, expected = UNSOUND[name]
    for export in (gs.to_dot, frame_of):
        with pytest.raises(gs.GraphError, match=expected):
            export(graph)


@pytest.mark.parametrize("name", ["a cycle", "a self-loop", "a repeat in itself", "less than nothing"])
def test_what_could_not_be_read_back_is_not_written(name: str) -> None:
    with pytest.raises(gs.GraphError, match=UNSOUND[name][1]):
        to_json(UNSOUND[name][0])


def test_documents_that_lie_are_graph_errors() -> None:
    document = json.loads(to_json(body()))
    changes: dict[str, Any] = {
        "is launched before its input 'up'": ("edges", {"source": "up", "target": "x"}),
        "takes its own result": ("edges", {"source": "up", "target": "up"}),
    }
    for message, (key, entry) in changes.items():
        changed = copy.deepcopy(document)
        changed[key].append(entry)
        with pytest.raises(gs.GraphError, match=message):
            from_json(changed)
    negative = json.loads(to_json(body()).replace('"m": 8.0', '"m": -8.0'))
    with pytest.raises(gs.GraphError, match="node 'up' has m = -8.0"):
        from_json(negative)
    for text in ('{"a": ' + "9" * 5000 + "}", '{"format": ' + "[" * 100_000):
        with pytest.raises(gs.GraphError):
            from_json(text)


def test_a_step_that_was_simulated_is_priced_for_another_device() -> None:
    """What the first device's schedule wrote is of no meaning on the second."""
    step = gs.simulate("gpt-2", "l4", engine="reference").prefill.graph
    again = gs.annotate(step, "h100-sxm")
    fresh = gs.annotate(gs.build_graph("gpt-2"), "h100-sxm")
    assert gs.critical_path(again).latency_s == gs.critical_path(fresh).latency_s
    assert gs.critical_path(again) == gs.critical_path(fresh)
    assert not any("start_s" in data for _, data in again.nodes(data=True))


def test_attributes_of_ones_own_stay_what_they_are() -> None:
    graph = body()
    graph.graph |= {"nodes": {"a": 1}, "name": "mine", "incoming_graph_data": [1]}
    graph.nodes["up"]["note"] = "kept"
    for verb in (lambda g: gs.annotate(g, "l4"), lambda g: gs.critical_path(gs.annotate(g, "l4")).graph):
        found = verb(graph)
        assert {key: found.graph[key] for key in graph.graph} == graph.graph
        assert list(found) == list(graph) and found.nodes["up"]["note"] == "kept"


def test_a_path_follows_what_was_added_behind_a_schedule() -> None:
    timed = gs.critical_path(gs.annotate(body(), "l4")).graph
    add(timed, "late", Norm(rows=8.0, width=8.0), ["up"])
    timed.nodes["late"]["latency_s"] = 1.0
    assert gs.critical_path(timed).latency_s > 1.0 and gs.critical_path(timed)[-1] == "late"


def test_two_nodes_of_one_name_are_an_error_where_they_are_made() -> None:
    graph = body()
    with pytest.raises(gs.GraphError, match="two nodes are named 'up'"):
        gs.add(graph, "up", Gemm(m=8.0, n=8.0, k=8.0), ["norm"])
    gs.add(graph, "up", graph.nodes["up"]["op"], ["x"])
    assert list(graph.predecessors("up")) == ["norm", "x"]


def test_a_graph_of_too_many_operations_is_not_spelled_out() -> None:
    graph = with_repeat(body(), 10**8)
    assert float(gs.total_work(graph).flops) > 0.0
    with pytest.raises(
        gs.GraphError, match="spelled out, the graph has 300,000,000 operations; allowed: up to 2,000,000"
    ):
        gs.unroll(graph)
