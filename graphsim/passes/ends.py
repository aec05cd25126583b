"""Kernels of the embedding's adapters: a look-up of A's rows, and an expand that adds to the base's rows in place."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import networkx as nx
import numpy as np

from graphsim.graph import Pass, Rule, Step, Value, inputs_of
from graphsim.ops import Embedding, LoraAdd, LoraB, Op, Repeat
from graphsim.ops.lora_kernels import LoraExpand, LoraLookup
from graphsim.passes.engine import Engine, back_to, source, terms
from graphsim.passes.grid import Grid


@dataclass(frozen=True, slots=True, kw_only=True)
class FuseTable(Pass):
    """Replaces the embedding's A, B and ADD by a look-up and an expand."""

    engine: Engine

    def body(self, repeat: Repeat) -> nx.DiGraph:
        """Layers have no embedding."""
        return repeat.body

    def rule(self, graph: nx.DiGraph) -> Rule:
        """The expand takes the position of the ADD: after the node that completes the base's rows."""
        stand_in: set[str] = set()
        ups: dict[str, LoraB] = {}
        served: dict[str, LoraB] = {}
        for name, op in graph.nodes(data="op"):
            if isinstance(op, LoraAdd):
                values = inputs_of(graph, name)
                up, base = (values[i].node for i in terms(graph, name))
                if isinstance(graph.nodes[source(graph, base)]["op"], Embedding):
                    b, behind = back_to(graph, up, LoraB)
                    stand_in |= {b, *behind}
                    ups[name] = graph.nodes[b]["op"]
                    look_up, _ = back_to(graph, b, LoraLookup)
                    served[look_up] = ups[name]

        def rule(name: str, op: Op, inputs: list[Value]) -> Iterator[Step | Value]:
            if name in stand_in:
                yield inputs[0]
            elif name in served and isinstance(op, LoraLookup):
                yield f"{name.rpartition('.')[0]}.lora_lookup", self._look_up(op, served[name]), inputs
            elif name in ups and isinstance(op, LoraAdd):
                up, base = terms(graph, name)
                completed = graph.nodes[inputs_of(graph, name)[base].node]["op"]
                expand = self._expand(op, ups[name], completed)
                yield f"{name.rpartition('.')[0]}.lora_expand", expand, [inputs[base], inputs[up]]
            else:
                yield name, op, inputs

        return rule

    def _look_up(self, op: LoraLookup, b: LoraB) -> LoraLookup:
        """A slot has one table of added rows for the embedding, and two for the head's buffers."""
        base, _ = op.serves
        added = self.engine.profile.extra_vocab_rows
        grid = Grid(self.engine, rows=op.rows, adapters=b.adapters)
        return replace(
            op, role=f"{base}.lora_lookup", vocabulary=op.vocabulary + added, extra_elems=3.0 * added * b.n,
            launches=grid.live, uncaptured_s=grid.uncaptured_s,
        )  # fmt: skip

    def _expand(self, joined: LoraAdd, b: LoraB, completed: Op) -> LoraExpand:
        """completed: the node whose rows are added to; with sequence parallelism, those of the device's own tokens."""
        base, _ = joined.serves
        profile = self.engine.profile
        rows = completed.out_elems / b.n
        share = rows / np.maximum(joined.m, 1e-9)
        grid = Grid(self.engine, rows=b.m * share, adapters=b.adapters, step_rows=rows)
        return LoraExpand(
            role=f"{base}.lora_expand", m=rows, width=b.n, rows=grid.rows, n=b.n, k=b.k, adapters=grid.adapters,
            slices=1, hidden=b.activations, weights=b.weights, activations=b.activations, layer=b.layer,
            residency=b.residency,
            **grid.tiles(profile.expand_one or profile.expand, b.n, 1),
        )  # fmt: skip
