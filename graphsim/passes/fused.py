"""Fused kernels: adapters on slices of one packed linear share a shrink and an expand, which adds in place.

There is no ADD of its own. The profiles say which engine does what, each field with its source.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import networkx as nx
import numpy as np

from graphsim.graph.rewriting import Value, add, inputs_of
from graphsim.lora.profile import Tiling
from graphsim.ops import Collective, Embedding, Gemm, LoraAdd, Op, Repeat
from graphsim.ops.lora import LoraA, LoraB
from graphsim.ops.lora_kernels import LoraExpand, LoraFill, LoraLookup, LoraShrink
from graphsim.ops.precision import FORMATS, Format
from graphsim.passes.engine import Engine, source, terms
from graphsim.units import Num


@dataclass(frozen=True, slots=True, kw_only=True)
class _Slice:
    """The nodes of one adapter: A, collectives behind it, B, what is behind that, ADD; and the value added to.

    base: the base's result, or the collective that completes it where the adapter is added behind that
    """

    a: str
    between: tuple[str, ...]
    b: str
    behind: tuple[str, ...]
    joined: str
    base: Value


def _slices(graph: nx.DiGraph) -> dict[str, list[_Slice]]:
    """The adapters of each base linear, by its name."""
    found: dict[str, list[_Slice]] = {}
    for name, op in graph.nodes(data="op"):
        if type(op) is not LoraAdd:
            continue
        b, base = terms(graph, name)
        if not isinstance(graph.nodes[source(graph, base.node)]["op"], Gemm):
            continue
        up, behind = _back_to(graph, b.node, LoraB)
        a, between = _back_to(graph, inputs_of(graph, up)[0].node, LoraA)
        one = _Slice(a=a, between=between, b=up, behind=behind, joined=name, base=base)
        found.setdefault(base.node, []).append(one)
    return found


def _back_to(graph: nx.DiGraph, name: str, kind: type[Op]) -> tuple[str, tuple[str, ...]]:
    """The node of a kind that a value comes from, and what lies between the two."""
    between: list[str] = []
    while not isinstance(graph.nodes[name]["op"], kind):
        between.insert(0, name)
        name = inputs_of(graph, name)[0].node
    return name, tuple(between)


def fuse(graph: nx.DiGraph, engine: Engine) -> nx.DiGraph:
    """The graph with a shrink and an expand for the adapters of each linear, in the place of A, B and ADD."""
    slices = _slices(graph)
    gone = {name for group in slices.values() for s in group for name in (s.a, *s.between, s.b, *s.behind, s.joined)}
    stands_for = {s.joined: s.base for group in slices.values() for s in group}
    out, moved = nx.DiGraph(), dict[str, str]()

    def value_of(value: Value) -> Value:
        base = stands_for.get(value.node)
        parts = value.parts or (base.parts if base else ())
        return Value(moved[base.node if base else value.node], parts)

    for name, op in graph.nodes(data="op"):
        if name in gone:
            continue
        inputs = [value_of(value) for value in inputs_of(graph, name)]
        mine = replace(op, body=fuse(op.body, engine)) if isinstance(op, Repeat) else op
        moved[name] = add(out, name, mine, inputs)
        if name in slices:
            inputs = [value_of(value) for value in inputs_of(graph, source(graph, name))]
        for group in _groups(slices.get(name, []), engine):
            moved[name] = _kernels(out, graph, name, group, engine, (moved[name], inputs))
    return out


def _groups(slices: list[_Slice], engine: Engine) -> list[list[_Slice]]:
    """Slices that share kernels."""
    return [slices] if engine.profile.packed and slices else [[s] for s in slices]


def _kernels(
    out: nx.DiGraph,
    graph: nx.DiGraph,
    name: str,
    group: list[_Slice],
    engine: Engine,
    around: tuple[str, list[Value]],
) -> str:
    """Adds the kernels of one packed linear; returns the last, which stands for the base from then on.

    around: the node that holds the base's result by now, and the base's inputs
    """
    behind, inputs = around
    base_name = source(graph, name)
    stem = ".".join([base_name, *(() if engine.profile.packed else group[0].base.parts)])
    base: Gemm = graph.nodes[base_name]["op"]
    first: LoraA = graph.nodes[group[0].a]["op"]
    ups: list[LoraB] = [graph.nodes[s.b]["op"] for s in group]
    joined: LoraAdd = graph.nodes[group[0].joined]["op"]
    hidden = FORMATS["fp32"] if engine.profile.intermediate == "fp32" else base.activations
    grid = _Grid(engine, rows=first.m, adapters=first.adapters)
    rank = sum((graph.nodes[s.a]["op"].n for s in group), start=0.0)
    last: list[Value | str] = list(inputs)
    if engine.profile.fill:
        fill = LoraFill(
            role=f"{base.role}.lora_fill", elems=grid.rows * rank, launches=grid.live,
            activations=hidden, layer=base.layer,
        )  # fmt: skip
        last.append(add(out, f"{stem}.lora_fill", fill))
    shrink = LoraShrink(
        role=f"{base.role}.lora_shrink", m=grid.rows, n=rank, k=first.k, adapters=grid.adapters, slices=len(group),
        inputs=base.activations, weights=first.weights, activations=hidden, layer=base.layer,
        **grid.tiles(engine.profile.shrink, first.n, len(group)),
    )  # fmt: skip
    hands_on = add(out, f"{stem}.lora_shrink", shrink, last)
    hands_on = _together(out, graph, stem, group, (hidden, grid.live), hands_on)
    widest = ups[0].n
    for up in ups[1:]:
        widest = np.maximum(widest, up.n)
    one = engine.profile.expand_one if len(group) == 1 else ()
    expand = LoraExpand(
        role=f"{base.role}.lora_expand", m=base.m, width=base.n, rows=joined.rows * grid.live,
        n=sum((up.n for up in ups), start=0.0), k=ups[0].k, adapters=grid.adapters, slices=len(group),
        hidden=hidden, weights=first.weights, activations=base.activations, parts=base.parts, layer=base.layer,
        **grid.tiles(one or engine.profile.expand, widest, len(group)),
    )  # fmt: skip
    return add(out, f"{stem}.lora_expand", expand, [behind, hands_on])


def _together(
    out: nx.DiGraph, graph: nx.DiGraph, stem: str, group: list[_Slice], carried: tuple[Format, Num], last: str
) -> str:
    """The collectives between A and B, one for all slices.

    carried: the format of what they move, and whether there is an adapter
    """
    hidden, live = carried
    for i, step in enumerate(group[0].between):
        op: Op = graph.nodes[step]["op"]
        if isinstance(op, Collective):
            elems = sum((graph.nodes[s.between[i]]["op"].elems for s in group), start=0.0)
            whole = replace(op, elems=elems * live, activations=hidden)
            last = add(out, f"{stem}.lora_shrink.{op.role}", whole, [last])
    return last


class _Grid:
    """Thread blocks of a step's kernels: tiles of one adapter's tokens, for every adapter that the grid covers."""

    def __init__(self, engine: Engine, rows: Num, adapters: Num) -> None:
        self.profile = engine.profile
        self.live = np.minimum(adapters, 1.0)
        self.rows = rows * self.live
        self.adapters = adapters
        self.covered = engine.slots if engine.profile.grid == "slots" else adapters

    def tiles(self, tilings: tuple[Tiling, ...], columns: Num, slices: int) -> dict[str, Any]:
        """Whether the kernel is launched, its tiles with and without tokens, and what each takes."""
        profile = self.profile
        if not tilings:
            return {"launches": self.live}
        first = tilings[0]
        rows: Num = first.rows
        width: Num = first.columns
        split: Num = first.split_k
        for tiling in tilings[1:]:
            reached = np.greater_equal(self.rows, tiling.tokens)
            rows = np.where(reached, tiling.rows, rows)
            width = np.where(reached, tiling.columns, width)
            split = np.where(reached, tiling.split_k, split)
        present = np.minimum(self.adapters, self.rows)
        each = np.ceil(self.rows / np.maximum(present, 1.0) / rows)
        across = np.ceil(columns / width) * split * slices
        occupied = present * each * across
        launched = self.covered * np.ceil(self.rows / rows) * across * self.live
        empty = np.maximum(launched - occupied, 0.0) if profile.grid == "slots" else 0.0
        return {
            "launches": self.live, "tiles": occupied, "empty_tiles": empty,
            "tile_clocks": profile.tile_clocks, "empty_tile_clocks": profile.empty_tile_clocks,
        }  # fmt: skip


def ends(graph: nx.DiGraph, engine: Engine) -> nx.DiGraph:
    """Slots of the embedding and the output head, where the engine keeps them for this model."""
    if not engine.embedding_slots:
        return graph
    out, moved = nx.DiGraph(), dict[str, str]()
    table = next((op for _, op in graph.nodes(data="op") if isinstance(op, Embedding) and not op.whole), None)
    joins = [name for name, op in graph.nodes(data="op") if op.joins_base]
    adapted = {source(graph, value.node) for name in joins for value in inputs_of(graph, name)}
    for name, op in graph.nodes(data="op"):
        inputs = [Value(moved[value.node], value.parts) for value in inputs_of(graph, name)]
        moved[name] = add(out, name, op, inputs)
        if name in adapted:
            continue
        if table is not None and op is table:
            moved[name] = _embedding_kernels(out, name, op, engine)
        elif isinstance(op, Gemm) and op.head:
            moved[name] = _head_kernels(out, name, op, engine, inputs)
    return out


def _embedding_kernels(out: nx.DiGraph, name: str, op: Embedding, engine: Engine) -> str:
    grid = _Grid(engine, rows=op.tokens * engine.lora.adapter_share, adapters=engine.lora.active_adapters)
    rank = engine.padded_rank
    # one table of added rows for the embedding and two for the head's buffers
    look_up = LoraLookup(
        role=f"{op.role}.lora_lookup", rows=grid.rows, n=rank, weights=engine.format, launches=grid.live,
        vocabulary=op.entries + engine.profile.extra_vocab_rows,
        extra_elems=3.0 * engine.profile.extra_vocab_rows * op.width, activations=op.activations,
    )  # fmt: skip
    found = add(out, f"{name}.lora_lookup", look_up, [name])
    expand = LoraExpand(
        role=f"{op.role}.lora_expand", m=op.tokens, width=op.width, rows=grid.rows, n=op.width, k=rank,
        adapters=grid.adapters, slices=1, hidden=op.activations, weights=engine.format, activations=op.activations,
        **grid.tiles(engine.profile.expand_one or engine.profile.expand, op.width, 1),
    )  # fmt: skip
    return add(out, f"{name}.lora_expand", expand, [name, found])


def _head_kernels(out: nx.DiGraph, name: str, op: Gemm, engine: Engine, inputs: list[Value]) -> str:
    grid = _Grid(engine, rows=op.m * engine.lora.adapter_share, adapters=engine.lora.active_adapters)
    rank, profile = engine.padded_rank, engine.profile
    hidden = FORMATS["fp32"] if profile.intermediate == "fp32" else op.activations
    shrink = LoraShrink(
        role=f"{op.role}.lora_shrink", m=grid.rows, n=rank, k=op.k, adapters=grid.adapters, slices=1,
        inputs=op.activations, weights=engine.format, activations=hidden, **grid.tiles(profile.shrink, rank, 1),
    )  # fmt: skip
    found = add(out, f"{name}.lora_shrink", shrink, inputs)
    expand = LoraExpand(
        role=f"{op.role}.lora_expand", m=op.m, width=op.n, rows=grid.rows, n=op.n, k=rank, adapters=grid.adapters,
        slices=1, hidden=hidden, weights=engine.format, activations=op.activations, parts=op.parts,
        **grid.tiles(profile.expand_one or profile.expand, op.n, 1),
    )  # fmt: skip
    return add(out, f"{name}.lora_expand", expand, [name, found])
