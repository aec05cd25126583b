"""The one verb: what a rule yields, what stands for what, and what becomes of bodies."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import networkx as nx
import pytest

import graphsim as gs
from graphsim.graph import Pass, Rule, Step, Value, add, inputs_of, rewrite
from graphsim.ops import Add, Elementwise, Gemm, Input, Join, Op, Part, Repeat


def chain(*names: str) -> nx.DiGraph:
    graph = nx.DiGraph()
    add(graph, "input", Input(elems=8.0))
    for before, name in zip(["input", *names], names, strict=False):
        add(graph, name, Elementwise(elems=8.0), [before])
    return graph


def packed() -> nx.DiGraph:
    graph = chain("x")
    add(graph, "qk", Gemm(m=1.0, n=8.0, k=8.0, parts=(Part(name="q", width=4.0), Part(name="k", width=4.0))), ["x"])
    add(graph, "both", Join(elems=8.0), ["qk"])
    add(graph, "one", Join(elems=4.0), [Value("qk", ("q",))])
    add(graph, "end", Join(elems=12.0), ["both", "one"])
    return graph


def without(*gone: str) -> Rule:
    def rule(name: str, op: Op, inputs: list[Value]) -> Iterator[Step | Value]:
        yield inputs[0] if name in gone else (name, op, inputs)

    return rule


def test_a_value_stands_for_a_node_that_is_left_out() -> None:
    out = rewrite(chain("a", "b", "c"), without("a", "b"))
    assert list(out) == ["input", "c"] and inputs_of(out, "c") == [Value("input")]


def test_users_get_the_parts_they_ask_for_and_otherwise_those_of_the_stand_in() -> None:
    def rule(name: str, op: Op, inputs: list[Value]) -> Iterator[Step | Value]:
        yield name, op, inputs
        if name == "qk":
            yield Value("qk", ("k",))

    out = rewrite(packed(), rule)
    assert inputs_of(out, "both") == [Value("qk", ("k",))] and inputs_of(out, "one") == [Value("qk", ("q",))]


def test_a_node_that_is_left_out_without_a_stand_in_must_not_be_needed() -> None:
    def drops(name: str, op: Op, inputs: list[Value]) -> Iterator[Step]:
        if name != "b":
            yield name, op, inputs

    with pytest.raises(gs.GraphError, match="node 'c' takes input from 'b', for which rule drops yielded nothing"):
        rewrite(chain("a", "b", "c"), drops)
    assert list(rewrite(chain("a", "b"), drops)) == ["input", "a"]


def test_a_graph_that_no_rule_changes_comes_back_itself() -> None:
    graph = packed()
    assert rewrite(graph, without()) is graph

    def longer(name: str, op: Op, inputs: list[Value]) -> Iterator[Step]:
        if name == "one":
            inputs.append(Value("x"))
        yield name, op, inputs

    out = rewrite(graph, longer)
    assert out is not graph and inputs_of(out, "one") == [Value("qk", ("q",)), Value("x")]
    assert all(inputs_of(out, name) == inputs_of(graph, name) for name in graph if name != "one")
    graph.nodes["x"]["latency_s"] = 1.0
    assert rewrite(graph, without()).nodes["x"] == {"op": graph.nodes["x"]["op"]}


@dataclass(frozen=True, slots=True)
class CountAdds(Pass):
    """Names every addition by how many came before it in its own graph."""

    first: int = 0

    def rule(self, graph: nx.DiGraph) -> Rule:
        seen = [self.first]

        def rule(name: str, op: Op, inputs: list[Value]) -> Iterator[Step]:
            yield (f"add_{seen[0]}" if isinstance(op, Add) else name), op, inputs
            seen[0] += isinstance(op, Add)

        return rule


def additions() -> nx.DiGraph:
    graph = chain()
    add(graph, "sum", Add(elems=8.0, reads=1.0), ["input"])
    add(graph, "total", Add(elems=8.0, reads=1.0), ["sum"])
    return graph


def test_a_pass_makes_its_rule_again_for_each_graph_and_body() -> None:
    graph = additions()
    add(graph, "layers", Repeat(body=additions(), times=3), ["total"])
    one = CountAdds()
    for out in (one(graph), one(graph), rewrite(graph, one)):
        assert list(out) == ["input", "add_0", "add_1", "layers"]
        assert list(out.nodes["layers"]["op"].body) == ["input", "add_0", "add_1"]
    assert list(graph.nodes["layers"]["op"].body) == ["input", "sum", "total"]


def test_passes_are_values_that_compare_by_their_arguments() -> None:
    assert CountAdds(first=1) == CountAdds(first=1) != CountAdds()
    assert {CountAdds(): "a"}[CountAdds()] == "a"
