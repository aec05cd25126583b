"""Packing: sibling projections that an engine launches as one kernel (q, k, v; gate and up)."""

from __future__ import annotations

from dataclasses import replace

import networkx as nx

from graphsim.graph.rewriting import Value, add, inputs_of
from graphsim.ops import Gemm, LoraGemm, Part, Repeat


def pack(graph: nx.DiGraph) -> nx.DiGraph:
    """Merge the Gemms of one `pack` that read the same value; users of a member take its slice of the result.

    Work is conserved but for the input, which is read once instead of once per member.
    """
    groups = _groups(graph)
    home = {member: name for name, members in groups.items() for member in members}
    out = nx.DiGraph()
    for name, op in graph.nodes(data="op"):
        if isinstance(op, Repeat):
            op = replace(op, body=pack(op.body))
        inputs = [_slice(graph, value, home) for value in inputs_of(graph, name)]
        if name not in home:
            add(out, name, op, inputs)
        elif home[name] not in out:
            members = groups[home[name]]
            merges = _one_time_inputs(graph, members, out)
            add(out, home[name], _packed(graph, home[name], members), [*inputs, *merges])
    return out


def _one_time_inputs(graph: nx.DiGraph, members: list[str], out: nx.DiGraph) -> list[str]:
    """Merges of all members, added ahead of the packed kernel; they take no inputs of their own."""
    merges = [p for member in members for p in graph.predecessors(member) if graph.nodes[p]["op"].once]
    return [add(out, merge, graph.nodes[merge]["op"]) for merge in merges]


def _groups(graph: nx.DiGraph) -> dict[str, list[str]]:
    """Members of each packed kernel: alike in input, split, format and bias, with slices that can be told apart."""
    found: dict[tuple[object, ...], list[str]] = {}
    for name, op in graph.nodes(data="op"):
        if isinstance(op, Gemm) and op.pack and not isinstance(op, LoraGemm):
            data = tuple(value for value in inputs_of(graph, name) if not graph.nodes[value.node]["op"].once)
            found.setdefault((op.pack, op.layer, op.split, op.weights, op.bias, data), []).append(name)
    groups: dict[str, list[str]] = {}
    for key, members in found.items():
        label = str(key[0])
        slices = [part.name for member in members for part in _parts(member, graph.nodes[member]["op"])]
        if len(members) > 1 and len(set(slices)) == len(slices):
            prefix = members[0].rpartition(".")[0]
            name = f"{prefix}.{label}" if prefix else label
            while name in groups or name in graph:
                name += "_"
            groups[name] = members
    return groups


def _packed(graph: nx.DiGraph, name: str, members: list[str]) -> Gemm:
    ops: list[Gemm] = [graph.nodes[member]["op"] for member in members]
    parts = tuple(part for member, op in zip(members, ops, strict=True) for part in _parts(member, op))
    return replace(ops[0], role=ops[0].pack, n=sum((op.n for op in ops), start=0.0), parts=parts)


def _parts(member: str, op: Gemm) -> tuple[Part, ...]:
    return op.parts or (Part(name=member, width=op.n, units=op.units),)


def _slice(graph: nx.DiGraph, value: Value, home: dict[str, str]) -> Value:
    if value.node not in home:
        return value
    names = value.parts or tuple(part.name for part in _parts(value.node, graph.nodes[value.node]["op"]))
    return Value(home[value.node], names)
