"""One all-reduce for a sum of two values that each had one, as of routed and shared experts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import networkx as nx
import numpy as np

from graphsim.graph import Pass, Rule, Step, Value, inputs_of
from graphsim.ops import Activation, Add, Op
from graphsim.ops.type_guards import is_all_reduce


@dataclass(frozen=True, slots=True, kw_only=True)
class ReduceTogether(Pass):
    """One all-reduce for the sum of two values in place of one for each, even if a gate scales one of them."""

    def rule(self, graph: nx.DiGraph) -> Rule:
        """Add partial sums, then reduce the result."""
        sums = {name: pair for name, op in graph.nodes(data="op") if (pair := _reduced_terms(graph, name, op))}
        dropped = {name for pair in sums.values() for name in pair}

        def rule(name: str, op: Op, inputs: list[Value]) -> Iterator[Step | Value]:
            if name in dropped:
                yield inputs[0]
                return
            yield name, op, inputs
            if name in sums:
                yield f"{name}.all_reduce", graph.nodes[sums[name][0]]["op"], [Value(name)]

        return rule


def _reduced_terms(graph: nx.DiGraph, name: str, op: Op) -> tuple[str, str] | None:
    """The all-reduces of both terms of a sum, if the sum is their only consumer; otherwise None."""
    if type(op) is not Add or len(graph.pred[name]) != 2:
        return None
    found = []
    for term in graph.pred[name]:
        ahead = graph.nodes[term]["op"]
        if isinstance(ahead, Activation) and ahead.by_row and graph.out_degree(term) == 1:
            term = inputs_of(graph, term)[0].node
        if not is_all_reduce(graph.nodes[term]["op"]) or graph.out_degree(term) != 1:
            return None
        found.append(term)
    one, other = (graph.nodes[term]["op"] for term in found)
    same = one.group is other.group or bool(np.all(np.equal(one.group, other.group)))
    return (found[0], found[1]) if same else None
