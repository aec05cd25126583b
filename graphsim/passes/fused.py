"""Fused kernels: adapters on slices of one packed linear share a shrink and an expand, which adds in place, without a
separate ADD.

The profiles say which engine does what, each field with its source.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import chain

import networkx as nx
import numpy as np

from graphsim.graph import Pass, Rule, Step, Value, inputs_of
from graphsim.ops import Collective, Gemm, LoraAdd, Op
from graphsim.ops.base import COMPUTE, SIDE
from graphsim.ops.formats import FORMATS, Format
from graphsim.ops.lora import LoraA, LoraB
from graphsim.ops.lora_kernels import LoraExpand, LoraFill, LoraShrink
from graphsim.passes.engine import Engine, back_to, source, terms
from graphsim.passes.grid import Grid
from graphsim.units import Num


@dataclass(frozen=True, slots=True, kw_only=True)
class _AdapterNodes:
    """The nodes of one adapter: A, collectives after it, B, collectives after that, ADD; and the value it is added to.

    base: the base's result, or the collective that reduces it if the adapter is added after that
    """

    a: str
    between: tuple[str, ...]
    b: str
    behind: tuple[str, ...]
    joined: str
    base: Value


def _slices(graph: nx.DiGraph) -> dict[str, list[_AdapterNodes]]:
    """The adapters of each base linear, by its name."""
    found: dict[str, list[_AdapterNodes]] = {}
    for name, op in graph.nodes(data="op"):
        if type(op) is not LoraAdd:
            continue
        values = inputs_of(graph, name)
        b, base = (values[i] for i in terms(graph, name))
        if not isinstance(graph.nodes[source(graph, base.node)]["op"], Gemm):
            continue
        up, behind = back_to(graph, b.node, LoraB)
        a, between = back_to(graph, inputs_of(graph, up)[0].node, LoraA)
        one = _AdapterNodes(a=a, between=between, b=up, behind=behind, joined=name, base=base)
        found.setdefault(base.node, []).append(one)
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Fuse(Pass):
    """A shrink and an expand for the adapters of each linear, in place of A, B and ADD."""

    engine: Engine

    def rule(self, graph: nx.DiGraph) -> Rule:
        """Kernels come right after the base's result; consumers of an ADD then take that result."""
        slices = _slices(graph)
        stand_in: dict[str, int] = {}
        for s in chain.from_iterable(slices.values()):
            stand_in |= dict.fromkeys((s.a, *s.between, s.b, *s.behind), 0) | {s.joined: terms(graph, s.joined)[1]}
        taken: dict[str, list[Value]] = {}

        def rule(name: str, op: Op, inputs: list[Value]) -> Iterator[Step | Value]:
            if name in stand_in:
                yield inputs[stand_in[name]]
                return
            yield name, op, inputs
            if isinstance(op, Gemm):
                taken[name] = inputs
            result = name
            for kernels in _kernels(graph, name, slices.get(name, []), self.engine):
                yield from kernels.steps(result, taken[kernels.base])
                result = kernels.last

        return rule


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kernels:
    """The kernels of one group of slices.

    base: the linear that they belong to
    result: that linear, or the collective that completes its result
    stem: prefix of their names
    """

    graph: nx.DiGraph
    engine: Engine
    group: list[_AdapterNodes]
    base: str
    result: str
    stem: str

    @property
    def last(self) -> str:
        """Name of the kernel that then stands for the base's result."""
        return f"{self.stem}.lora_expand"

    def steps(self, behind: str, inputs: list[Value]) -> Iterator[Step]:
        """Fill, shrink, the collectives between, and expand.

        behind: the node that holds the base's result
        inputs: inputs of the base
        """
        base: Gemm = self.graph.nodes[self.base]["op"]
        first: LoraA = self.graph.nodes[self.group[0].a]["op"]
        hidden = FORMATS["fp32"] if self.engine.profile.intermediate == "fp32" else base.activations
        grid = Grid(self.engine, rows=first.m, adapters=first.adapters, step_rows=base.m)
        stream = SIDE if self.engine.profile.side_stream else COMPUTE
        rank = sum((self.graph.nodes[s.a]["op"].n for s in self.group), start=0.0)
        ordered = [Value(behind)] if self._gathered(base) else []
        if self.engine.profile.fill:
            fill = LoraFill(
                role=f"{base.role}.lora_fill", elems=grid.step_rows * grid.live * rank, launches=grid.live,
                uncaptured_s=grid.uncaptured_s, activations=hidden, layer=base.layer, stream=stream,
            )  # fmt: skip
            yield f"{self.stem}.lora_fill", fill, ordered
            ordered = [Value(f"{self.stem}.lora_fill")]
        shrink = LoraShrink(
            role=f"{base.role}.lora_shrink", m=grid.rows, n=rank, k=first.k, adapters=grid.adapters,
            slices=len(self.group), inputs=base.activations, weights=first.weights, activations=hidden,
            layer=base.layer, stream=stream, residency=first.residency,
            **grid.tiles(self.engine.profile.shrink, first.n, len(self.group)),
        )  # fmt: skip
        shrunk = f"{self.stem}.lora_shrink"
        yield shrunk, shrink, [*inputs, *ordered]
        for name, collective in self._together(hidden, grid.live):
            yield name, collective, [Value(shrunk)]
            shrunk = name
        yield self.last, self._expand(base, first, hidden, grid), [Value(behind), Value(shrunk)]

    def _gathered(self, base: Gemm) -> bool:
        """Whether they come after a gather of logits, which an engine waits for before the shrink."""
        return base.head and self.result != self.base

    def _together(self, hidden: Format, live: Num) -> Iterator[tuple[str, Collective]]:
        """The collectives between A and B, one for all slices.

        hidden: number format of the values that they move
        live: 1 if there is an adapter, else 0
        """
        for i, step in enumerate(self.group[0].between):
            op: Op = self.graph.nodes[step]["op"]
            if isinstance(op, Collective):
                elems = sum((self.graph.nodes[s.between[i]]["op"].elems for s in self.group), start=0.0)
                yield f"{self.stem}.lora_shrink.{op.role}", replace(op, elems=elems * live, activations=hidden)

    def _expand(self, base: Gemm, first: LoraA, hidden: Format, grid: Grid) -> LoraExpand:
        ups: list[LoraB] = [self.graph.nodes[s.b]["op"] for s in self.group]
        joined: LoraAdd = self.graph.nodes[self.group[0].joined]["op"]
        widest = ups[0].n
        for up in ups[1:]:
            widest = np.maximum(widest, up.n)
        profile = self.engine.profile
        one = profile.expand_one if len(self.group) == 1 else ()
        width = joined.n if self._gathered(base) else base.n
        rows = base.m if self.result == self.base else self.graph.nodes[self.result]["op"].out_elems / width
        tiles = grid.tiles(one or profile.expand, widest, len(self.group), [up.n for up in ups])
        tiles["launches"] = tiles["launches"] * (1.0 + profile.side_waits * float(profile.side_stream))
        return LoraExpand(
            role=f"{base.role}.lora_expand", m=rows, width=width, rows=joined.rows,
            n=sum((up.n for up in ups), start=0.0), k=ups[0].k, adapters=grid.adapters, slices=len(self.group),
            hidden=hidden, weights=first.weights, activations=base.activations, parts=base.parts, layer=base.layer,
            residency=ups[0].residency, **tiles,
        )  # fmt: skip


def _kernels(graph: nx.DiGraph, name: str, slices: list[_AdapterNodes], engine: Engine) -> Iterator[_Kernels]:
    """The kernels behind a base's result: one group for all slices where the engine packs them, else one for each."""
    packed = engine.profile.packed
    base = source(graph, name)
    for group in [slices] if packed and slices else [[s] for s in slices]:
        stem = ".".join([base, *(() if packed else group[0].base.parts)])
        yield _Kernels(graph=graph, engine=engine, group=group, base=base, result=name, stem=stem)
