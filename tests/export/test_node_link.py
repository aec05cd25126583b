"""A graph survives JSON: every op, every annotation, every bit of every number."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields, is_dataclass, replace
from enum import Enum
from typing import Any

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import graphsim as gs
from graphsim.export.node_link import from_json, to_json
from graphsim.graph import add, inputs_of, to_text, total_work
from graphsim.ops import Gemm, Op, Part, Together
from graphsim.ops.formats import FORMATS, Format
from tests.operations import CLASSES, example


def same(a, b) -> bool:
    """Equal in kind and in every bit, numpy's scalars counting as Python's."""
    a = a.item() if isinstance(a, np.generic) else a
    b = b.item() if isinstance(b, np.generic) else b
    if type(a) is not type(b):
        return False
    if isinstance(a, nx.DiGraph):
        return same_graph(a, b)
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    if isinstance(a, float):
        return a.hex() == b.hex()
    if isinstance(a, Enum | str | int | type(None)):
        return a == b
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    assert is_dataclass(a), type(a)
    return all(same(getattr(a, f.name), getattr(b, f.name)) for f in fields(a))


def same_graph(a: nx.DiGraph, b: nx.DiGraph) -> bool:
    return (
        list(a) == list(b)
        and same(dict(a.graph), dict(b.graph))
        and all(same(a.nodes[n], b.nodes[n]) for n in a)
        and all(inputs_of(a, n) == inputs_of(b, n) for n in a)
        and all(same(a.edges[e], b.edges[e]) for e in a.edges)
    )


def test_every_make_of_graph_comes_back_as_it_was(graphs, hostile):
    for label, graph in {**graphs, "hostile": hostile}.items():
        back = from_json(to_json(graph))
        assert same_graph(graph, back), label
        assert to_text(graph) == to_text(back)
        assert to_json(back) == to_json(graph)


def test_a_graph_that_came_back_gives_the_same_results(graphs):
    back = from_json(to_json(graphs["plain"]))
    assert float(total_work(back).flops) == float(total_work(graphs["plain"]).flops)
    path = gs.critical_path(gs.annotate(back, "h100-sxm"))
    assert path == gs.critical_path(graphs["annotated"])
    assert path.latency_s == gs.critical_path(graphs["annotated"]).latency_s


def test_files_are_plain_node_link_json_for_networkx(graphs, tmp_path):
    to_json(graphs["dynamic"], tmp_path / "g.json")
    data = json.loads((tmp_path / "g.json").read_text())
    read = nx.node_link_graph(data, edges="edges")
    assert list(read) == list(graphs["dynamic"]) and set(read.edges) == set(graphs["dynamic"].edges)
    assert same_graph(from_json(tmp_path / "g.json"), graphs["dynamic"])
    assert same_graph(from_json(str(tmp_path / "g.json")), graphs["dynamic"])
    assert same_graph(from_json(data), graphs["dynamic"])


FILLED = ("tuple[str, ...]", "tuple[Part, ...]", "int")
"""Types of the fields that some operations have under one name as something else."""

OWN_FORMAT = Format(name="own", bytes=0.3, compute="fp8")


def filled(kind: type[Op], number: Any) -> Op:
    """An operation with every field set to something else than its default."""
    other = {"role": "r", "once": True, "layer": 2, "tags": ("a", "b"), "activations": FORMATS["fp8_block"]}
    other |= {"weights": OWN_FORMAT, "parts": (Part(name="p", width=number, units=2.0),)}
    names = {f.name for f in fields(kind) if f.name not in ("tags", "parts", "layer") or f.type in FILLED}
    names = names if kind is not Together else {"role", "once", "activations"}
    return replace(example(kind, number), **{name: value for name, value in other.items() if name in names})


@pytest.mark.parametrize("number", [7, 0.1, np.array([1.5, np.nan, -np.inf]), np.array([], dtype=np.float32)], ids=repr)
@pytest.mark.parametrize("name", CLASSES)
def test_every_operation_comes_back(name: str, number: Any) -> None:
    graph = nx.DiGraph()
    add(graph, name, filled(CLASSES[name], number))
    assert same_graph(graph, from_json(to_json(graph)))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(list(gs.OpType)),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(max_size=5) | st.integers(), inner, max_size=3)
    ),
    max_leaves=12,
)


@settings(max_examples=40, deadline=None)
@given(json_values, st.text(), st.text())
def test_any_annotation_under_any_name_comes_back(value, name, key):
    graph = nx.DiGraph()
    graph.add_node(name, note=value)
    graph.graph[key] = value
    assert same_graph(graph, from_json(to_json(graph)))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class OwnOp(Op):
    """A user's own op."""

    width: float = 1.0

    @property
    def out_elems(self):
        return self.width


def test_an_op_of_ones_own_comes_back():
    graph = nx.DiGraph()
    add(graph, "own", OwnOp(width=3.0))
    assert type(from_json(to_json(graph)).nodes["own"]["op"]) is OwnOp


def test_what_cannot_be_written_is_named():
    graph = nx.DiGraph()
    graph.add_node("n", what=object())
    with pytest.raises(gs.GraphError, match="node 'n', what: a value of type 'object'"):
        to_json(graph)
    graph = nx.DiGraph()
    graph.add_node(3)
    with pytest.raises(gs.GraphError, match="node 3"):
        to_json(graph)
    graph = nx.DiGraph()
    graph.add_node("n", id=3)
    with pytest.raises(gs.GraphError, match="attribute called 'id'"):
        to_json(graph)
    graph = nx.DiGraph(table=np.array(["a"]))
    with pytest.raises(gs.GraphError, match="graph, table: an array"):
        to_json(graph)


def document(**changes) -> dict:
    plain = nx.DiGraph()
    add(plain, "a", Gemm(m=1.0, n=1.0, k=1.0))
    add(plain, "b", Gemm(m=1.0, n=1.0, k=1.0), ["a"])
    return json.loads(to_json(plain)) | changes


BAD = {
    "not JSON": '{"format": ',
    "another format": "{}",
    "another version": document(version=99),
    "nodes missing": document(nodes=None),
    "node without id": document(nodes=[{}]),
    "node twice": document(nodes=[{"id": "a"}, {"id": "a"}]),
    "edge to nowhere": document(edges=[{"source": "a", "target": "c"}]),
    "unknown op": document(nodes=[{"id": "a", "op": {"$op": "Gemn", "fields": {}}}], edges=[]),
    "unknown field": document(nodes=[{"id": "a", "op": {"$op": "Gemm", "fields": {"q": 1}}}], edges=[]),
    "missing field": document(nodes=[{"id": "a", "op": {"$op": "Gemm", "fields": {}}}], edges=[]),
    "unknown tag": document(nodes=[{"id": "a", "op": {"$call": "os.system"}}], edges=[]),
    "unknown format": document(graph={"f": {"$format": "fp7"}}),
    "unknown enum": document(graph={"f": {"$enum": "Sharding", "name": "DIAGONAL"}}),
    "bad array": document(graph={"f": {"$array": {"dtype": "object", "shape": [1], "values": [1]}}}),
    "bad shape": document(graph={"f": {"$array": {"dtype": "float64", "shape": [2], "values": [1]}}}),
    "bad float": document(graph={"f": {"$float": "much"}}),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_read_gives_one_readable_sentence(name):
    with pytest.raises(gs.GraphError) as caught:
        from_json(BAD[name])
    assert "\n" not in str(caught.value) and len(str(caught.value)) > 20


def test_a_missing_or_binary_file_is_explained(tmp_path):
    with pytest.raises(gs.ConfigError, match="cannot be read"):
        from_json(tmp_path / "none.json")
    (tmp_path / "bytes").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(gs.ConfigError, match="not a text file"):
        from_json(tmp_path / "bytes")
