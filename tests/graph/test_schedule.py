"""The schedule against networkx's own longest path, on models and on random programs over several streams."""

from __future__ import annotations

from dataclasses import dataclass

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import graphsim as gs
from graphsim.graph import add, unroll
from graphsim.graph.critical import critical_path, schedule
from graphsim.graph.schedule import makespan_s
from graphsim.ops import Input, Op, Repeat
from graphsim.ops.structure import last_node
from graphsim.units import Num

STREAMS = ("compute", "network", "copy")
SCENARIOS = 3


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Busy(Op):
    """Takes as long as it says."""

    seconds: Num

    @property
    def out_elems(self) -> Num:
        return 1.0


def durations() -> st.SearchStrategy[np.ndarray]:
    whole = st.integers(0, 9)
    return st.lists(whole, min_size=SCENARIOS, max_size=SCENARIOS).map(lambda v: np.array(v, dtype=float))


@st.composite
def programs(draw: st.DrawFn, most: int = 8, body: bool = False, repeats: bool = True) -> nx.DiGraph:
    """Random nodes, streams, durations and edges; a body enters at an Input and may hold sources of its own."""
    graph = nx.DiGraph()
    if body:
        graph.add_node("input", op=Input(elems=1.0), latency_s=0.0)
    for i in range(draw(st.integers(1, most))):
        known = list(graph)
        inputs = draw(st.lists(st.sampled_from(known), max_size=3, unique=True)) if known else []
        if repeats and draw(st.integers(0, 3)) == 0:
            inner = draw(programs(most=5, body=True, repeats=not body))
            graph.add_node(f"r{i}", op=Repeat(body=inner, times=draw(st.integers(1, 6))))
            name = f"r{i}"
        else:
            seconds = draw(durations())
            name = f"n{i}"
            graph.add_node(name, op=Busy(seconds=seconds, stream=draw(st.sampled_from(STREAMS))), latency_s=seconds)
        graph.add_edges_from((source, name) for source in inputs)
    return graph


def priced(graph: nx.DiGraph) -> nx.DiGraph:
    """Durations as latencies, where unrolling has dropped them."""
    out = graph.copy()
    for _, data in out.nodes(data=True):
        data["latency_s"] = getattr(data["op"], "seconds", 0.0)
    return out


def at(value: Num, scenario: int) -> float:
    return float(np.broadcast_to(np.asarray(value, dtype=float), (SCENARIOS,))[scenario])


def stream_edges(graph: nx.DiGraph) -> nx.DiGraph:
    """The stream constraint written as edges, for networkx; repeats must be unrolled."""
    out, last = graph.copy(), dict[str, str]()
    for name, op in graph.nodes(data="op"):
        if op.once:
            continue
        if op.stream in last and not out.has_edge(last[op.stream], name):
            out.add_edge(last[op.stream], name, stream=op.stream)
        last[op.stream] = name
    return out


def longest_path_s(graph: nx.DiGraph, scenario: int) -> float:
    """networkx's answer: every node's duration stands on the edges that enter it."""
    chained = stream_edges(graph)
    weighted = nx.DiGraph()
    for name, data in chained.nodes(data=True):
        weight = at(data["latency_s"], scenario)
        weighted.add_edge("source", name, weight=weight)
        weighted.add_edges_from((source, name, {"weight": weight}) for source in chained.predecessors(name))
    return float(nx.dag_longest_path_length(weighted))


@settings(max_examples=60, deadline=None)
@given(programs(most=14, repeats=False))
def test_random_programs_end_when_networkx_says(graph: nx.DiGraph) -> None:
    found = makespan_s(graph)
    for i in range(SCENARIOS):
        assert at(found, i) == longest_path_s(graph, i)


@settings(max_examples=120, deadline=None)
@given(programs())
def test_a_repeat_is_its_body_spelled_out(graph: nx.DiGraph) -> None:
    """Also where streams run on across the boundary, and where repeats hold repeats."""
    flat = priced(unroll(graph))
    found = makespan_s(graph)
    for i in range(SCENARIOS):
        assert at(found, i) == longest_path_s(flat, i)


@settings(max_examples=60, deadline=None)
@given(programs(repeats=False, most=14))
def test_slack_is_what_a_node_could_take_longer(graph: nx.DiGraph) -> None:
    """Never negative; zero somewhere; delaying a node by its slack keeps the end, by more moves it."""
    whole = makespan_s(graph)
    done = schedule(graph)
    slack = {name: np.broadcast_to(data["slack_s"], (SCENARIOS,)) for name, data in done.nodes(data=True)}
    for i in range(SCENARIOS):
        values = [slack[name][i] for name in slack]
        assert min(values) >= 0 and 0 in values
        for name in graph:
            for extra, moved in ((0.0, 0.0), (0.25, 0.25)):
                later = graph.copy()
                later.nodes[name]["latency_s"] = at(graph.nodes[name]["latency_s"], i) + slack[name][i] + extra
                for other in graph:
                    if other != name:
                        later.nodes[other]["latency_s"] = at(graph.nodes[other]["latency_s"], i)
                assert at(makespan_s(later), 0) == at(whole, i) + moved


@settings(max_examples=60, deadline=None)
@given(programs())
def test_slack_inside_repeats_is_that_of_the_middle_turn(graph: nx.DiGraph) -> None:
    done = schedule(graph)
    flat = schedule(priced(unroll(graph)))
    for name, data in done.nodes(data=True):
        op = data["op"]
        if isinstance(op, Repeat):
            middle = op.times // 2
            for inner, found in op.body.nodes(data=True):
                if not isinstance(found["op"], Repeat):
                    expected = flat.nodes[f"{name}.{middle}.{inner}"]
                    np.testing.assert_allclose(
                        found["slack_s"] + 0 * np.zeros(SCENARIOS), expected["slack_s"], atol=1e-9
                    )
        else:
            np.testing.assert_allclose(data["slack_s"], flat.nodes[name]["slack_s"], atol=1e-9)
            np.testing.assert_allclose(data["start_s"], flat.nodes[name]["start_s"], atol=1e-9)


@settings(max_examples=60, deadline=None)
@given(programs(repeats=False, most=14))
def test_the_critical_path_is_a_gapless_chain_as_long_as_the_whole(graph: nx.DiGraph) -> None:
    for i in range(SCENARIOS):
        path = critical_path(schedule(graph), scenario=i)
        total = sum(at(graph.nodes[name]["latency_s"], i) for name in path)
        assert total == at(makespan_s(graph), i)
        edges = stream_edges(graph)
        assert all(nx.has_path(edges, a, b) for a, b in zip(path, path[1:], strict=False))


@settings(max_examples=40, deadline=None)
@given(programs(repeats=False, most=14))
def test_the_end_lies_between_the_longest_node_or_stream_and_the_sum(graph: nx.DiGraph) -> None:
    found = makespan_s(graph)
    for i in range(SCENARIOS):
        seconds = {name: at(data["latency_s"], i) for name, data in graph.nodes(data=True)}
        streams: dict[str, float] = {}
        for name, op in graph.nodes(data="op"):
            streams[op.stream] = streams.get(op.stream, 0.0) + seconds[name]
        assert max(*streams.values(), *seconds.values()) <= at(found, i) <= sum(seconds.values())


@settings(max_examples=40, deadline=None)
@given(st.lists(durations(), min_size=1, max_size=12), st.data())
def test_one_stream_takes_the_sum_however_the_data_flows(seconds: list[np.ndarray], data: st.DataObject) -> None:
    graph = nx.DiGraph()
    for i, duration in enumerate(seconds):
        graph.add_node(i, op=Busy(seconds=duration), latency_s=duration)
        sources = data.draw(st.lists(st.sampled_from(range(i)), unique=True)) if i else []
        graph.add_edges_from((source, i) for source in sources)
    assert np.array_equal(np.broadcast_to(makespan_s(graph), (SCENARIOS,)), sum(seconds))


@settings(max_examples=30, deadline=None)
@given(programs(body=True, repeats=False), st.integers(1, 40), st.integers(1, 40))
def test_more_turns_never_end_earlier_and_no_turn_is_free_of_its_streams(body: nx.DiGraph, a: int, b: int) -> None:
    def end(times: int) -> Num:
        graph = nx.DiGraph()
        graph.add_node("r", op=Repeat(body=body, times=times))
        return makespan_s(graph)

    few, many = sorted((a, b))
    assert np.all(end(few) <= end(many))
    busy = {
        s: sum((d["latency_s"] for _, d in body.nodes(data=True) if d["op"].stream == s), start=0.0) for s in STREAMS
    }
    assert np.all(end(many) >= many * np.max(np.broadcast_arrays(*busy.values(), np.zeros(SCENARIOS)), axis=0))


def test_one_time_nodes_take_no_part() -> None:
    graph = nx.DiGraph()
    graph.add_node("merge", op=Busy(seconds=5.0, once=True), latency_s=5.0)
    graph.add_node("gemm", op=Busy(seconds=1.0), latency_s=1.0)
    graph.add_edge("merge", "gemm")
    assert makespan_s(graph) == 1.0
    assert "start_s" not in schedule(graph).nodes["merge"]
    assert list(critical_path(graph)) == ["gemm"]


MODELS = {
    "plain": {"model": "llama-3.2-1b"},
    "tensor parallel with an adapter": {
        "model": "llama-3.1-8b",
        "parallelism": gs.Parallelism(tp=4),
        "lora": gs.LoraConfig(rank=16),
    },
    "windows in alternation": {"model": "gemma-2-9b"},
    "pipeline": {"model": "llama-3.2-1b", "batch": 4, "parallelism": gs.Parallelism(pp=3, tp=2)},
    "halves that take turns": {
        "model": "mixtral-8x7b",
        "batch": 8,
        "parallelism": gs.Parallelism(ep=4),
        "engine": "sglang-deepep-tbo",
    },
    "ranks by layer": {
        "model": "llama-3.2-1b",
        "lora": gs.LoraConfig(rank=8, rank_pattern={"layers.3.self_attn.q_proj": 64}),
    },
}


@pytest.mark.parametrize("phase", ["prefill", "decode"])
@pytest.mark.parametrize("name", MODELS)
def test_models_end_when_networkx_says(name: str, phase: str) -> None:
    graph = gs.build_graph(phase=phase, input_tokens=640, **MODELS[name])
    whole = gs.annotate(graph, "h100-sxm")
    flat = gs.annotate(gs.unroll(graph), "h100-sxm")
    expected = longest_path_s(flat, 0)
    assert makespan_s(whole) == pytest.approx(expected, rel=1e-12)
    assert makespan_s(flat) == pytest.approx(expected, rel=1e-12)
    assert critical_path(flat).latency_s == pytest.approx(expected, rel=1e-12)
    assert sum(flat.nodes[n]["latency_s"] for n in critical_path(flat)) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("name", MODELS)
def test_names_on_the_critical_path_are_the_graphs(name: str) -> None:
    graph = gs.annotate(gs.build_graph(input_tokens=64, **MODELS[name]), "h100-sxm")
    path = critical_path(graph)
    flat = set(graph) | {f"{r}.{n}" for r, op in graph.nodes(data="op") if isinstance(op, Repeat) for n in op.body}
    assert len(path) == len(set(path)) > 3
    assert set(path) <= flat
    assert path[-1].rpartition(".")[2] in (last_node(graph), "sample")


def test_unrolling_names_the_blocks_by_their_number() -> None:
    flat = gs.build_graph("llama-3.2-1b", input_tokens=8, expand=True)
    assert {f"layers_0_15.{i}.q_proj" for i in range(16)} <= set(flat) or {
        f"layers_0_15.{i}.qkv_proj" for i in range(16)
    } <= set(flat)
    gs.validate(flat)
    assert not any(isinstance(op, Repeat) for _, op in flat.nodes(data="op"))


def test_an_added_node_knows_its_predecessors() -> None:
    graph = nx.DiGraph()
    add(graph, "a", Busy(seconds=1.0))
    add(graph, "b", Busy(seconds=2.0), ["a"])
    assert list(graph.predecessors("b")) == ["a"]
