"""Kernels of the embedding and the output head, where an engine keeps slots for both whether adapters reach them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import networkx as nx

from graphsim.graph import Pass, Rule, Step, Value, inputs_of
from graphsim.ops import Embedding, Gemm, Op, Repeat
from graphsim.ops.lora_kernels import LoraExpand, LoraLookup, LoraShrink
from graphsim.ops.precision import FORMATS
from graphsim.passes.engine import Engine, source
from graphsim.passes.grid import Grid


@dataclass(frozen=True, slots=True, kw_only=True)
class EndSlots(Pass):
    """Kernels for the slots of the embedding and the output head, unless the adapter has brought its own."""

    engine: Engine

    def body(self, repeat: Repeat) -> nx.DiGraph:
        """Layers have neither."""
        return repeat.body

    def rule(self, graph: nx.DiGraph) -> Rule:
        """Of several embeddings, only the first that is not whole on every device has slots."""
        table = next((op for _, op in graph.nodes(data="op") if isinstance(op, Embedding) and not op.whole), None)
        joins = [name for name, op in graph.nodes(data="op") if op.joins_base]
        adapted = {source(graph, value.node) for name in joins for value in inputs_of(graph, name)}

        def rule(name: str, op: Op, inputs: list[Value]) -> Iterator[Step]:
            yield name, op, inputs
            if name in adapted:
                return
            if isinstance(op, Embedding) and op is table:
                yield from _embedding_kernels(name, op, self.engine)
            elif isinstance(op, Gemm) and op.head:
                yield from _head_kernels(name, op, self.engine, inputs)

        return rule


def _embedding_kernels(name: str, op: Embedding, engine: Engine) -> Iterator[Step]:
    rows, adapters = op.tokens * engine.lora.adapter_share, engine.lora.active_adapters
    grid = Grid(engine, rows=rows, adapters=adapters, step_rows=op.tokens)
    rank = engine.padded_rank
    # one table of added rows for the embedding and two for the head's buffers
    look_up = LoraLookup(
        role=f"{op.role}.lora_lookup", rows=grid.rows, n=rank, weights=engine.format, launches=grid.live,
        uncaptured_s=grid.uncaptured_s,
        vocabulary=op.entries + engine.profile.extra_vocab_rows,
        extra_elems=3.0 * engine.profile.extra_vocab_rows * op.width, activations=op.activations,
    )  # fmt: skip
    yield f"{name}.lora_lookup", look_up, [Value(name)]
    expand = LoraExpand(
        role=f"{op.role}.lora_expand", m=op.tokens, width=op.width, rows=grid.rows, n=op.width, k=rank,
        adapters=grid.adapters, slices=1, hidden=op.activations, weights=engine.format, activations=op.activations,
        **grid.tiles(engine.profile.expand_one or engine.profile.expand, op.width, 1),
    )  # fmt: skip
    yield f"{name}.lora_expand", expand, [Value(name), Value(f"{name}.lora_lookup")]


def _head_kernels(name: str, op: Gemm, engine: Engine, inputs: list[Value]) -> Iterator[Step]:
    grid = Grid(engine, rows=op.m * engine.lora.adapter_share, adapters=engine.lora.active_adapters, step_rows=op.m)
    rank, profile = engine.padded_rank, engine.profile
    hidden = FORMATS["fp32"] if profile.intermediate == "fp32" else op.activations
    shrink = LoraShrink(
        role=f"{op.role}.lora_shrink", m=grid.rows, n=rank, k=op.k, adapters=grid.adapters, slices=1,
        inputs=op.activations, weights=engine.format, activations=hidden, **grid.tiles(profile.shrink, rank, 1),
    )  # fmt: skip
    yield f"{name}.lora_shrink", shrink, inputs
    expand = LoraExpand(
        role=f"{op.role}.lora_expand", m=op.m, width=op.n, rows=grid.rows, n=op.n, k=rank, adapters=grid.adapters,
        slices=1, hidden=hidden, weights=engine.format, activations=op.activations, parts=op.parts,
        **grid.tiles(profile.expand_one or profile.expand, op.n, 1),
    )  # fmt: skip
    yield f"{name}.lora_expand", expand, [Value(name), Value(f"{name}.lora_shrink")]
