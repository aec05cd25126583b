"""Lowering: the three logical nodes of an adapter become the kernels that an engine launches.

Runs behind sharding and packing. Adapters on slices of one packed linear share a shrink and an expand; the expand adds
in place, so there is no ADD. `LORA.md` of the profiles' sources says which engine does what.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import networkx as nx
import numpy as np

from graphsim.graph import Value, add, inputs_of
from graphsim.lora.config import LoraConfig
from graphsim.lora.injection import Buffers
from graphsim.lora.profile import EngineProfile, Tiling
from graphsim.ops import Collective, Elementwise, Embedding, Gemm, Launch, LoraAdd, Op, Repeat
from graphsim.ops.lora import LoraA, LoraB
from graphsim.ops.lora_kernels import LoraExpand, LoraFill, LoraLookup, LoraShrink
from graphsim.precision import FORMATS, Format
from graphsim.units import Num


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """A profile at work for one adapter configuration and one model."""

    profile: EngineProfile
    lora: LoraConfig
    embedding_slots: bool

    @property
    def buffers(self) -> Buffers:
        """What the engine's buffers make of an adapter."""
        return Buffers(
            rank=self.padded_rank if self.profile.rank == "padded" else None,
            every_linear=self.profile.modules == "every_linear",
            merge_passes=self.profile.merge_passes,
        )

    @property
    def slots(self) -> Num:
        """Adapters that the engine keeps room for."""
        return np.maximum(self.lora.max_loras, self.lora.active_adapters)

    @property
    def format(self) -> Format:
        """Of the factors."""
        return FORMATS[self.lora.lora_dtype]

    @property
    def padded_rank(self) -> Num:
        """The rank of the engine's buffers."""
        return np.maximum(self.lora.max_lora_rank, self.lora.largest_rank)


def lower(graph: nx.DiGraph, engine: Engine) -> nx.DiGraph:
    """The graph with the engine's own kernels; the graph itself where these are the logical nodes."""
    if engine.lora.strategy == "dynamic":
        if engine.profile.kernels == "fused":
            graph = _ends(_fused(graph, engine), engine)
        elif engine.profile.kernels == "eager_modules":
            graph = _modules(graph, engine)
    return graph


@dataclass(frozen=True, slots=True, kw_only=True)
class _Slice:
    """The nodes of one adapter: A, collectives behind it, B, ADD; and the value of the base that it adds to."""

    a: str
    between: tuple[str, ...]
    b: str
    joined: str
    base: Value


def _slices(graph: nx.DiGraph) -> dict[str, list[_Slice]]:
    """The adapters of each base linear, by its name."""
    found: dict[str, list[_Slice]] = {}
    for name, op in graph.nodes(data="op"):
        if type(op) is not LoraAdd:
            continue
        b = next(value.node for value in inputs_of(graph, name) if isinstance(graph.nodes[value.node]["op"], LoraB))
        base = next(value for value in inputs_of(graph, name) if value.node != b)
        between: list[str] = []
        at = inputs_of(graph, b)[0].node
        while not isinstance(graph.nodes[at]["op"], LoraA):
            between.insert(0, at)
            at = inputs_of(graph, at)[0].node
        found.setdefault(base.node, []).append(_Slice(a=at, between=tuple(between), b=b, joined=name, base=base))
    return found


def _fused(graph: nx.DiGraph, engine: Engine) -> nx.DiGraph:
    slices = _slices(graph)
    gone = {name for group in slices.values() for s in group for name in (s.a, *s.between, s.b, s.joined)}
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
        mine = replace(op, body=_fused(op.body, engine)) if isinstance(op, Repeat) else op
        moved[name] = add(out, name, mine, inputs)
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
    stem = name if engine.profile.packed or len(group[0].base.parts) == 0 else ".".join([name, *group[0].base.parts])
    base: Gemm = graph.nodes[name]["op"]
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
    hands_on = _together(out, graph, stem, group, hidden, hands_on)
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


def _together(out: nx.DiGraph, graph: nx.DiGraph, stem: str, group: list[_Slice], hidden: Format, last: str) -> str:
    """The collectives between A and B, one for all slices."""
    for i, step in enumerate(group[0].between):
        op: Op = graph.nodes[step]["op"]
        if isinstance(op, Collective):
            elems = sum((graph.nodes[s.between[i]]["op"].elems for s in group), start=0.0)
            suffix = step.rpartition(".")[2]
            whole = replace(op, elems=elems, activations=hidden)
            last = add(out, f"{stem}.lora_shrink.{suffix}", whole, [last])
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


def _ends(graph: nx.DiGraph, engine: Engine) -> nx.DiGraph:
    """Slots of the embedding and the output head, where the engine keeps them for this model."""
    if not engine.embedding_slots:
        return graph
    out, moved = nx.DiGraph(), dict[str, str]()
    table = next((op for _, op in graph.nodes(data="op") if isinstance(op, Embedding) and not op.whole), None)
    for name, op in graph.nodes(data="op"):
        inputs = [Value(moved[value.node], value.parts) for value in inputs_of(graph, name)]
        moved[name] = add(out, name, op, inputs)
        if table is not None and op is table:
            moved[name] = _embedding_kernels(out, name, op, engine)
        elif isinstance(op, Gemm) and op.role == "lm_head":
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


def _modules(graph: nx.DiGraph, engine: Engine) -> nx.DiGraph:
    """One module call per adapter: A, B, a scaling and an addition, each a kernel for each adapter present."""
    out = nx.DiGraph()
    for name, op in graph.nodes(data="op"):
        inputs = inputs_of(graph, name)
        mine = replace(op, body=_modules(op.body, engine)) if isinstance(op, Repeat) else op
        if isinstance(op, LoraA | LoraB | LoraAdd):
            mine = replace(op, launches=engine.lora.active_adapters)
        if type(op) is LoraAdd:
            b = next(v.node for v in inputs if isinstance(graph.nodes[v.node]["op"], LoraB))
            scale = Elementwise(
                role=op.role.replace("lora_add", "lora_scale"), elems=op.rows * op.n, activations=op.activations,
                layer=op.layer,
            )  # fmt: skip
            scaled = add(out, name.replace("lora_add", "lora_scale"), scale, [b])
            inputs = [Value(scaled) if value.node == b else value for value in inputs]
        add(out, name, mine, inputs)
    return out


def eager(graph: nx.DiGraph) -> nx.DiGraph:
    """Every kernel waits for the host to start it; the host starts them one after another."""
    out = nx.DiGraph()
    for name, op in graph.nodes(data="op"):
        inputs: list[Value | str] = list(inputs_of(graph, name))
        if isinstance(op, Repeat):
            op = replace(op, body=eager(op.body))
        elif op.launched and not op.once:
            times = getattr(op, "launches", 1.0)
            inputs.append(add(out, f"{name}.launch", Launch(role="launch", times=times, layer=op.layer)))
        add(out, name, op, inputs)
    return out
