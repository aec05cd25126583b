"""Kernels that an engine fuses across neighbours: rotary embeddings with the cache, routing with the experts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import networkx as nx

from graphsim.graph import Pass, Rule, Step, Value, inputs_of
from graphsim.ops import KvCache, Op, Permute, Rope, Route
from graphsim.ops.fused_blocks import CACHE, rope_cache, routed_gather


@dataclass(frozen=True, slots=True, kw_only=True)
class FuseRope(Pass):
    """The rotary embedding's kernel also writes keys to the cache."""

    def rule(self, graph: nx.DiGraph) -> Rule:
        """Put the kernel in place of the cache write; users of the rotated values take its parts."""
        ropes = {rope: cache for cache in graph if (rope := _rope_of(graph, cache))}
        caches = {cache: rope for rope, cache in ropes.items()}
        given: dict[str, list[Value]] = {}

        def rule(name: str, op: Op, inputs: list[Value]) -> Iterator[Step | Value]:
            if name in ropes:
                given[name] = inputs
                yield Value(ropes[name])
            elif name in caches and isinstance(op, KvCache):
                rope = caches[name]
                others = [value for value in inputs if value.node != name]
                yield (
                    name,
                    rope_cache(graph.nodes[rope]["op"], op, keeps_keys=_keeps(graph, rope, name)),
                    [
                        *given[rope],
                        *others,
                    ],
                )
                yield Value(name, (CACHE,))
            else:
                yield name, op, inputs

        return rule


def _rope_of(graph: nx.DiGraph, cache: str) -> str:
    """The rotary embedding whose keys go into a cache that later attention reads; "" for none."""
    op = graph.nodes[cache]["op"]
    if type(op) is not KvCache or op.source:
        return ""
    places = {name: place for place, name in enumerate(graph)}
    ropes = [value for value in inputs_of(graph, cache) if type(graph.nodes[value.node]["op"]) is Rope]
    if len(ropes) != 1 or ropes[0].parts != ("k",):
        return ""
    rope = ropes[0].node
    behind = all(places[user] >= places[cache] for user in graph.succ[rope])
    named = all(graph.edges[rope, user].get("parts") for user in graph.succ[rope])
    alone = sum(isinstance(graph.nodes[user]["op"], KvCache) for user in graph.succ[rope]) == 1
    return rope if behind and named and alone else ""


def _keeps(graph: nx.DiGraph, rope: str, cache: str) -> bool:
    """Whether other nodes than the cache take the rotated keys."""
    return any("k" in graph.edges[rope, user].get("parts", ()) for user in graph.succ[rope] if user != cache)


@dataclass(frozen=True, slots=True, kw_only=True)
class FuseRouting(Pass):
    """The experts' kernel selects the experts from the router's logits."""

    def rule(self, graph: nx.DiGraph) -> Rule:
        """The gather of the experts' rows takes the logits."""
        routes = {name for name, op in graph.nodes(data="op") if type(op) is Route and _gathers(graph, name)}

        def rule(name: str, op: Op, inputs: list[Value]) -> Iterator[Step | Value]:
            routed = [source for source in graph.pred[name] if source in routes]
            if name in routes:
                yield inputs[0]
            elif routed and isinstance(op, Permute):
                yield name, routed_gather(graph.nodes[routed[0]]["op"], op), inputs
            else:
                yield name, op, inputs

        return rule


def _gathers(graph: nx.DiGraph, route: str) -> bool:
    """Whether a single gather of rows is the only consumer of one router's choices."""
    users = [graph.nodes[user]["op"] for user in graph.succ[route]]
    return len(users) == 1 and len(graph.pred[route]) == 1 and type(users[0]) is Permute and users[0].gather
