"""Packing: sibling projections that an engine launches as one kernel (q, k, v; gate and up)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import ClassVar

import networkx as nx

from graphsim.graph import Pass, Rule, Stage, Step, Value, inputs_of
from graphsim.ops import Gemm, Op, Part


@dataclass(frozen=True, slots=True)
class Pack(Pass):
    """Merges the Gemms of one `pack` that read the same value; users of a member take its slice of the result.

    Work is conserved except for the input, which is read once instead of once per member.
    """

    stage: ClassVar[Stage] = "sharded"

    def rule(self, graph: nx.DiGraph) -> Rule:
        """The packed kernel takes the position of its first member, after the merges of all members."""
        groups = _groups(graph)
        home = {member: name for name, members in groups.items() for member in members}

        def rule(name: str, op: Op, inputs: list[Value]) -> Iterator[Step | Value]:
            if not isinstance(op, Gemm) or name not in home:
                yield name, op, inputs
                return
            packed = home[name]
            members = groups[packed]
            if name == members[0]:
                merges = list(_merges(graph, members))
                yield from merges
                yield packed, _packed(graph, members), [*inputs, *(Value(merge) for merge, *_ in merges)]
            yield Value(packed, tuple(part.name for part in _parts(name, op)))

        return rule


def pack(graph: nx.DiGraph) -> nx.DiGraph:
    """The graph with sibling projections packed; see `Pack`."""
    return Pack()(graph)


def _merges(graph: nx.DiGraph, members: list[str]) -> Iterator[Step]:
    """One-time merges of all members; they take no inputs of their own."""
    for member in members:
        for source in graph.predecessors(member):
            if graph.nodes[source]["op"].once:
                yield source, graph.nodes[source]["op"], []


def _groups(graph: nx.DiGraph) -> dict[str, list[str]]:
    """Members of each packed kernel: equal in input, sharding, bias and residency, with differently named slices.

    Members of different formats are not packed: engines hold them as one weight, so they refuse it (vLLM 0.33,
    `quantization/utils/quant_utils.py`, `is_layer_skipped`); transformers and llama.cpp run them separately.
    """
    found: dict[tuple[object, ...], list[str]] = {}
    for name, op in graph.nodes(data="op"):
        if isinstance(op, Gemm) and op.pack and not op.factor:
            data = tuple(value for value in inputs_of(graph, name) if not graph.nodes[value.node]["op"].once)
            found.setdefault((op.pack, op.layer, op.split, op.bias, op.residency, data), []).append(name)
    groups: dict[str, list[str]] = {}
    for key, members in found.items():
        label = str(key[0])
        slices = [part.name for member in members for part in _parts(member, graph.nodes[member]["op"])]
        alike = len({graph.nodes[member]["op"].weights for member in members}) == 1
        if len(members) > 1 and alike and len(set(slices)) == len(slices):
            prefix = members[0].rpartition(".")[0]
            name = f"{prefix}.{label}" if prefix else label
            while name in groups or name in graph:
                name += "_"
            groups[name] = members
    return groups


def _packed(graph: nx.DiGraph, members: list[str]) -> Gemm:
    ops: list[Gemm] = [graph.nodes[member]["op"] for member in members]
    parts = tuple(part for member, op in zip(members, ops, strict=True) for part in _parts(member, op))
    shape = {f.name: getattr(ops[0], f.name) for f in fields(Gemm)}
    shape |= {"role": ops[0].pack, "n": sum((op.n for op in ops), start=0.0), "parts": parts}
    if not any(op.overridden for op in ops):
        return replace(ops[0], **{name: shape[name] for name in ("role", "n", "parts")})
    from graphsim.ops.overrides import OverriddenGemm

    held = tuple(
        part
        for member, op in zip(members, ops, strict=True)
        for part in (op.held if isinstance(op, OverriddenGemm) else _parts(member, op))
    )
    return OverriddenGemm(**shape, held=held)


def _parts(member: str, op: Gemm) -> tuple[Part, ...]:
    return op.parts or (Part(name=member, width=op.n, units=op.units),)
