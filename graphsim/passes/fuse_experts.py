"""Shared experts: on a separate stream from the routed ones, or in the same kernel."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import networkx as nx
import numpy as np

from graphsim.graph import Pass, Rule, Step, Value
from graphsim.ops import (
    COMPUTE,
    Add,
    Gemm,
    Input,
    Op,
)
from graphsim.ops.base import SIDE
from graphsim.ops.type_guards import is_expert_gemm

if TYPE_CHECKING:
    from graphsim.ops import ExpertGemm


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shared:
    """The sum of routed and shared experts: the node of either term, and those of the shared experts alone."""

    add: str
    routed: str
    shared: str
    nodes: tuple[str, ...]


def _shared_of(graph: nx.DiGraph) -> list[_Shared]:
    """The layers' shared experts."""
    found = []
    for name, op in graph.nodes(data="op"):
        sources = list(graph.pred[name])
        if type(op) is not Add or len(sources) != 2:
            continue
        behind = [nx.ancestors(graph, source) | {source} for source in sources]
        experts = [{node for node in nodes if _is_expert(graph, node, op.layer)} for nodes in behind]
        if bool(experts[0]) == bool(experts[1]):
            continue
        routed = 0 if experts[0] else 1
        ahead = {name for node in experts[routed] for name in nx.ancestors(graph, node)} | behind[routed]
        own = [node for node in graph if node in behind[1 - routed] and node not in ahead]
        products = [node for node in own if _is_gemm(graph, node, op.layer)]
        if len(products) > 1 and all(not isinstance(graph.nodes[node]["op"], Input) for node in own):
            found.append(_Shared(add=name, routed=sources[routed], shared=sources[1 - routed], nodes=tuple(own)))
    return found


def _is_gemm(graph: nx.DiGraph, name: str, layer: int) -> bool:
    op = graph.nodes[name]["op"]
    return isinstance(op, Gemm) and op.layer == layer


def _is_expert(graph: nx.DiGraph, name: str, layer: int) -> bool:
    return _is_gemm(graph, name, layer) and is_expert_gemm(graph.nodes[name]["op"])


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedStream(Pass):
    """Runs shared experts on a separate stream, concurrently with the routed ones."""

    def rule(self, graph: nx.DiGraph) -> Rule:
        """Change the stream of their kernels."""
        beside = {name for shared in _shared_of(graph) for name in shared.nodes}

        def rule(name: str, op: Op, inputs: list[Value]) -> Iterator[Step]:
            moved = name in beside and op.stream == COMPUTE
            yield name, (replace(op, stream=SIDE) if moved else op), inputs

        return rule


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedInKernel(Pass):
    """Makes the shared expert one more expert of the routed ones' kernel, which every token chooses.

    This needs the routed ones' shape and format, and experts that are not distributed over several groups.
    """

    def rule(self, graph: nx.DiGraph) -> Rule:
        """Its nodes and the sum of both are removed."""
        fused = [shared for shared in _shared_of(graph) if _is_alike(graph, shared)]
        gone = {name for shared in fused for name in shared.nodes}
        layers = {graph.nodes[shared.add]["op"].layer: _chosen(graph, shared) for shared in fused}
        sums = {shared.add: shared for shared in fused}

        def rule(name: str, op: Op, inputs: list[Value]) -> Iterator[Step | Value]:
            if name in gone:
                yield inputs[0]
            elif name in sums:
                routed = list(graph.pred[name]).index(sums[name].routed)
                yield inputs[routed]
            else:
                yield name, (_with_one_more(op, layers[op.layer]) if op.layer in layers else op), inputs

        return rule


def _chosen(graph: nx.DiGraph, shared: _Shared) -> float:
    """How many routed experts a token chooses."""
    return float(_experts(graph, shared)[0].chosen)


def _experts(graph: nx.DiGraph, shared: _Shared) -> list[ExpertGemm]:
    """The routed experts' GEMMs."""
    before, layer = nx.ancestors(graph, shared.add), graph.nodes[shared.add]["op"].layer
    return [graph.nodes[name]["op"] for name in graph if name in before and _is_expert(graph, name, layer)]


def _is_alike(graph: nx.DiGraph, shared: _Shared) -> bool:
    """Whether the shared branch is exactly one expert like the routed ones."""
    from graphsim.ops import Permute

    ops = [graph.nodes[name]["op"] for name in shared.nodes]
    products = [op for op in ops if isinstance(op, Gemm)]
    experts = _experts(graph, shared)
    if (
        len(products) != 2
        or len(ops) != 3
        or len(experts) != 2
        or type(graph.nodes[shared.routed]["op"]) is not Permute
    ):
        return False
    whole = all(bool(np.all(np.equal(expert.ranks, 1.0))) for expert in experts)
    return whole and all(
        one.weights == expert.weights and bool(np.all(np.equal(one.n, expert.n) & np.equal(one.k, expert.k)))
        for one, expert in zip(products, experts, strict=True)
    )


def _with_one_more(op: Op, chosen: float) -> Op:
    """An operation of the experts' block with one more expert, for all tokens in addition to `chosen` others."""
    from graphsim.ops import ExpertActivation, Permute

    more = (chosen + 1.0) / chosen
    if is_expert_gemm(op):
        return replace(op, m=op.m * more, experts=op.experts + 1.0, of=op.of + 1, chosen=op.chosen + 1, always=1)
    if isinstance(op, Permute):
        return replace(op, chosen=op.chosen + 1.0)
    return replace(op, elems=op.elems * more) if isinstance(op, ExpertActivation) else op
