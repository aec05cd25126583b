"""What a valid graph is: laws of any graph, and laws of each stage."""

from __future__ import annotations

import networkx as nx
import numpy as np
import pytest

import graphsim as gs
from graphsim.graph import STAGES, add, validate
from graphsim.ops import AllReduce, Elementwise, ExchangeTokens, Input, Launch, Op, Repeat
from graphsim.ops.lora_kernels import LoraShrink


def graph_with(op: Op, name: str = "op") -> nx.DiGraph:
    graph = nx.DiGraph()
    add(graph, "input", Input(elems=8.0))
    add(graph, name, op, ["input"])
    return graph


SHRINK = LoraShrink(m=1.0, n=8.0, k=8.0, adapters=1.0, slices=1.0)


@pytest.mark.parametrize(
    ("op", "first"),
    [
        (ExchangeTokens(elems=8.0, group=2.0), "logical"),
        (AllReduce(elems=8.0, group=2.0), "sharded"),
        (SHRINK, "lowered"),
        (Launch(), "launched"),
    ],
)
def test_an_op_is_not_there_before_its_stage(op: Op, first: str) -> None:
    graph = graph_with(op)
    for stage in STAGES[: STAGES.index(first)]:
        with pytest.raises(gs.GraphError, match=f"'op' is of kind {type(op).__name__}, which no {stage} graph holds"):
            validate(graph, stage)
    for stage in STAGES[STAGES.index(first) : -1]:
        validate(graph, stage)


@pytest.mark.parametrize("elems", [-1.0, np.nan, np.inf, np.array([1.0, -2.0])])
def test_dimensions_are_finite_and_not_negative(elems: object) -> None:
    with pytest.raises(gs.GraphError, match="node 'op' has elems = .* allowed: finite numbers from 0"):
        validate(graph_with(Elementwise(elems=elems)))


def test_every_kernel_of_a_launched_graph_has_one_launch() -> None:
    graph = graph_with(Elementwise(elems=8.0))
    with pytest.raises(gs.GraphError, match="'op' waits for 0 launches; expected 1"):
        validate(graph, "launched")
    launched = nx.DiGraph()
    add(launched, "input", Input(elems=8.0))
    for name in ("one", "two"):
        add(launched, name, Launch())
    add(launched, "op", Elementwise(elems=8.0), ["input", "one"])
    with pytest.raises(gs.GraphError, match="'two' is unused"):
        validate(launched, "launched")
    add(launched, "op", launched.nodes["op"]["op"], ["two"])
    with pytest.raises(gs.GraphError, match="'op' waits for 2 launches; expected 1"):
        validate(launched, "launched")


def test_a_block_leaves_as_much_as_it_takes_and_the_sentence_says_in_which_body() -> None:
    body = graph_with(Elementwise(elems=8.0))
    add(body, "half", Elementwise(elems=4.0, reads=2.0), ["op"])
    graph = graph_with(Repeat(body=body, times=2), "layers")
    with pytest.raises(gs.GraphError, match="'layers' repeats a body whose 'input' takes 8 elements and whose result"):
        validate(graph)
    broken = graph_with(Elementwise(elems=9.0))
    add(broken, "end", Elementwise(elems=8.0), ["op"])
    with pytest.raises(gs.GraphError, match=r"node 'layers\.op' expects 9 elements, its inputs input bring 8"):
        validate(graph_with(Repeat(body=broken, times=2), "layers"))


def test_a_stage_that_is_not_there_is_told() -> None:
    with pytest.raises(gs.GraphError, match="stage = 'sharted' is not known; did you mean 'sharded'"):
        validate(graph_with(SHRINK), "sharted")  # type: ignore[arg-type]
