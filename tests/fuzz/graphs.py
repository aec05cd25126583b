"""Graphs whose nodes, edges and operations were changed by hand, through every verb that takes a graph."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import fields, replace
from functools import cache
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np

import graphsim as gs
from graphsim.display.operators import frame_of
from graphsim.export.node_link import from_json, to_json
from graphsim.ops import Op, Repeat
from graphsim.result import PhaseEstimate
from tests.fuzz.hostile import NAMES, VALUES
from tests.fuzz.runner import Fuzzer, require_finite

MODEL = {
    "model_type": "llama", "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 256, "max_position_embeddings": 512,
}  # fmt: skip
EXPERTS = MODEL | {"model_type": "mixtral", "num_local_experts": 8, "num_experts_per_tok": 2}
LORA = gs.LoraConfig(rank=4, target_modules=["attn", "ffn"])

NUMBERS: tuple[Any, ...] = (
    np.array([1.0, 2.0]), np.array([1.0, 2.0, 3.0]), np.array([]), np.array([np.nan, 1.0]), np.array([[1.0]]),
    np.array(["a"]), np.float32(3.0), np.int64(-4), np.array(5.0), object, {1, 2}, b"bytes", 1j, nx.DiGraph(),
    nx.Graph(),
)  # fmt: skip
"""Values that only Python can carry."""


@cache
def bases() -> tuple[nx.DiGraph, ...]:
    """Small graphs of every make."""
    estimate = gs.simulate(MODEL, "h100-sxm", 2, 16, 4, lora=LORA, engine="reference")
    several = gs.simulate(MODEL, "l4", [1, 2, 3], 16, 4, engine="reference")
    return (
        gs.build_graph(MODEL, input_tokens=16, lora=LORA),
        gs.build_graph(MODEL, "decode", batch=[1, 2, 3], input_tokens=16),
        gs.build_graph(MODEL, input_tokens=16, lora=LORA, engine="vllm", expand=True),
        gs.build_graph(EXPERTS, input_tokens=16, parallelism=gs.Parallelism(tp=2, ep=2)),
        gs.annotate(gs.build_graph(MODEL, input_tokens=16), "l4"),
        estimate.prefill.graph,
        several.decode.graph,
        gs.train(MODEL, "h100-sxm", seq_len=16, lora=LORA).graph,
    )


def copied(graph: nx.DiGraph) -> nx.DiGraph:
    """A graph whose attributes and bodies may be changed without changing the one that it was made from."""
    out = nx.DiGraph(**graph.graph)
    for name, data in graph.nodes(data=True):
        out.add_node(name, **data)
        if isinstance(data["op"], Repeat):
            out.nodes[name]["op"] = replace(data["op"], body=copied(data["op"].body))
    out.add_edges_from((source, target, dict(data)) for source, target, data in graph.edges(data=True))
    return out


def somewhere(graph: nx.DiGraph, rng: random.Random) -> nx.DiGraph:
    """The graph, or the body of one of its repeats."""
    repeats = [op for _, op in graph.nodes(data="op") if isinstance(op, Repeat) and isinstance(op.body, nx.DiGraph)]
    return rng.choice(repeats).body if repeats and rng.random() < 0.6 else graph


def any_value(rng: random.Random) -> Any:
    return rng.choice(VALUES + NUMBERS)


def an_edge(graph: nx.DiGraph, rng: random.Random) -> None:
    names = list(graph)
    graph.add_edge(rng.choice(names), rng.choice(names))


def no_edge(graph: nx.DiGraph, rng: random.Random) -> None:
    if graph.edges:
        graph.remove_edge(*rng.choice(list(graph.edges)))


def an_edges_attribute(graph: nx.DiGraph, rng: random.Random) -> None:
    if graph.edges:
        graph.edges[rng.choice(list(graph.edges))][rng.choice(("parts", "weight"))] = rng.choice(
            (("q",), ("no such part",), [1], *VALUES)
        )


def a_node(graph: nx.DiGraph, rng: random.Random) -> None:
    graph.add_node(rng.choice((*NAMES, 3, (1, 2))), **rng.choice(({}, {"op": any_value(rng)})))


def no_node(graph: nx.DiGraph, rng: random.Random) -> None:
    graph.remove_node(rng.choice(list(graph)))


def other_names(graph: nx.DiGraph, rng: random.Random) -> None:
    names = list(graph)
    nx.relabel_nodes(graph, {rng.choice(names): rng.choice((*NAMES, 7, 1.5, names[0], names[-1]))}, copy=False)


def an_attribute(graph: nx.DiGraph, rng: random.Random) -> None:
    known = ("op", "cost", "latency_s", "bound", "start_s", "finish_s", "slack_s", "critical", "note")
    data = rng.choice((graph.graph, *(data for _, data in graph.nodes(data=True))))
    data[rng.choice(known)] = any_value(rng)


def no_attribute(graph: nx.DiGraph, rng: random.Random) -> None:
    data = rng.choice([data for _, data in graph.nodes(data=True)])
    if data:
        del data[rng.choice(list(data))]


def a_field(graph: nx.DiGraph, rng: random.Random) -> None:
    data = rng.choice([data for _, data in graph.nodes(data=True)])
    op = data.get("op")
    if isinstance(op, Op):
        data["op"] = replace(op, **{rng.choice(fields(op)).name: any_value(rng)})


def itself(graph: nx.DiGraph, rng: random.Random) -> None:
    graph.add_node("again", op=Repeat(body=graph, times=rng.choice((1, 2, 10**9))))


def turns(graph: nx.DiGraph, rng: random.Random) -> None:
    body = copied(bases()[0]) if rng.random() < 0.7 else nx.DiGraph()
    graph.add_node("turns", op=Repeat(body=body, times=rng.choice((0, 1, 50, 10**7, 10**18))))


CHANGES: tuple[Callable[[nx.DiGraph, random.Random], None], ...] = (
    an_edge, an_edge, no_edge, an_edges_attribute, a_node, no_node, other_names, an_attribute, an_attribute,
    no_attribute,
    a_field, a_field, a_field, a_field, itself, turns,
)  # fmt: skip


def annotated(graph: nx.DiGraph) -> None:
    require_finite(gs.critical_path(gs.annotate(graph, "h100-sxm")).latency_s)


def followed(graph: nx.DiGraph) -> None:
    require_finite(gs.critical_path(graph).latency_s)


def counted(graph: nx.DiGraph) -> None:
    work = gs.total_work(graph)
    require_finite(work.flops, work.memory_bytes, work.message_bytes)


def written(graph: nx.DiGraph) -> None:
    text = to_json(graph)
    assert to_json(from_json(text)) == text


def traced(graph: nx.DiGraph) -> None:
    gs.to_trace(PhaseEstimate(name="prefill", build=lambda: graph))


VERBS: tuple[Callable[[nx.DiGraph], Any], ...] = (
    annotated, annotated, followed, counted, written, traced, gs.to_dot, frame_of, gs.to_text, gs.validate, gs.unroll,
    gs.training_dot,
)  # fmt: skip


def case(rng: random.Random, folder: Path) -> None:
    graph = copied(rng.choice(bases()))
    for _ in range(rng.randint(1, 3)):
        place = somewhere(graph, rng)
        if len(place):
            rng.choice(CHANGES)(place, rng)
    other = rng.random()
    if other < 0.02:
        graph = rng.choice((nx.MultiDiGraph, nx.Graph))(graph)
    rng.choice(VERBS)(graph)


def sound(folder: Path) -> None:
    for graph in bases():
        for verb in (annotated, counted, written, gs.to_dot, gs.to_text):
            verb(graph)


FUZZER = Fuzzer("graphs", case, sound)
