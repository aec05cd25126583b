"""Fused kernels for adapters on experts: rows sorted into blocks once, then a shrink and an expand for each GEMM.

vLLM 0.33, `vllm/lora/ops/triton_ops/fused_moe_lora_op.py`; SGLang 0.5.23, `srt/lora/lora_moe_runners.py`. Each
engine's profile states its blocks, fills and streams.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import networkx as nx
import numpy as np

from graphsim.graph import Pass, Rule, Step, Value, inputs_of
from graphsim.ops import AllGather, AllReduce, Collective, ExpertGemm, Op, Sharding
from graphsim.ops.base import COMPUTE, SIDE
from graphsim.ops.lora_expert_kernels import ExpertLoraExpand, ExpertLoraShrink, ExpertLoraSort, ExpertLoraTaken
from graphsim.ops.lora_experts import ExpertLoraA, ExpertLoraAdd, ExpertLoraB
from graphsim.ops.lora_kernels import LoraFill
from graphsim.passes.engine import Engine, back_to, source, terms
from graphsim.passes.expert_blocks import ExpertBlocks
from graphsim.units import Num


@dataclass(frozen=True, slots=True, kw_only=True)
class FuseExperts(Pass):
    """Replaces A, B and ADD of each stack of experts by the engine's kernels."""

    engine: Engine

    def rule(self, graph: nx.DiGraph) -> Rule:
        """Kernels come right after the base's GEMM; consumers of an ADD then take its replacement."""
        factors: dict[str, tuple[ExpertLoraA, ExpertLoraB]] = {}
        stand_in: dict[str, int] = {}
        for name, op in graph.nodes(data="op"):
            if isinstance(op, ExpertLoraAdd):
                up, base = terms(graph, name)
                values = inputs_of(graph, name)
                b, behind = back_to(graph, values[up].node, ExpertLoraB)
                a, between = back_to(graph, inputs_of(graph, b)[0].node, ExpertLoraA)
                factors[source(graph, values[base].node)] = graph.nodes[a]["op"], graph.nodes[b]["op"]
                stand_in |= dict.fromkeys((a, *between, b, *behind), 0) | {name: base}
        order: dict[int, str] = {}

        def rule(name: str, op: Op, inputs: list[Value]) -> Iterator[Step | Value]:
            if name in stand_in:
                yield inputs[stand_in[name]]
                return
            yield name, op, inputs
            if isinstance(op, ExpertGemm) and name in factors:
                kernels = _Kernels(self.engine, name, op, *factors[name])
                if op.layer not in order:
                    order[op.layer] = f"{name}.lora_sort"
                    yield from kernels.sort(inputs)
                yield from kernels.steps(inputs, Value(order[op.layer]))
                if op.split is Sharding.ROW:
                    del order[op.layer]

        return rule


class _Kernels:
    """The kernels of one GEMM, with sizes from its down and up projections a and b."""

    def __init__(self, engine: Engine, name: str, base: ExpertGemm, a: ExpertLoraA, b: ExpertLoraB) -> None:
        self.profile, self.name, self.base, self.a, self.b = engine.profile, name, base, a, b
        self.blocks, self.experts = ExpertBlocks(engine, a), engine.profile.experts
        least = self.experts.one_shot_rank * float(not a.sharded)
        self.apart = np.greater(b.k, least) * 1.0 if least else 1.0
        self.beside = self.profile.side_stream
        self.delta = self.beside and base.split is not Sharding.ROW

    def _stream(self, beside: bool) -> str:
        return SIDE if beside else COMPUTE

    def sort(self, inputs: list[Value]) -> Iterator[Step]:
        """Rows into blocks."""
        sort = ExpertLoraSort(
            role=f"{self.base.role}.lora_sort", rows=self.base.m * self.blocks.live, padded=self.blocks.padded,
            launches=self.experts.sorts * self.blocks.live, stream=self._stream(self.beside),
            activations=self.base.activations, layer=self.base.layer,
        )  # fmt: skip
        yield f"{self.name}.lora_sort", sort, inputs[:1]

    def steps(self, inputs: list[Value], order: Value) -> Iterator[Step]:
        """Fill, shrink, the collectives that complete it, and expand.

        inputs: the base's
        order: of the rows
        """
        behind = [*inputs[:1], order]
        if self.experts.fills:
            yield f"{self.name}.lora_fill", self._fill(), []
            behind.append(Value(f"{self.name}.lora_fill"))
        shrunk = f"{self.name}.lora_shrink"
        yield shrunk, self._shrink(), behind
        if self.a.sharded:
            whole = self._together()
            yield f"{shrunk}.{whole.role}", whole, [Value(shrunk)]
            shrunk = f"{shrunk}.{whole.role}"
        expanded = f"{self.name}.lora_expand"
        yield expanded, self._expand(), [Value(shrunk)] if self.delta else [Value(self.name), Value(shrunk)]
        if self.delta:
            taken = ExpertLoraTaken(
                role=f"{self.base.role}.lora_taken", m=self.base.m, n=self.base.n, rows=self.blocks.rows,
                launches=self.profile.side_waits * self.blocks.live, activations=self.base.activations,
                layer=self.base.layer,
            )  # fmt: skip
            yield f"{self.name}.lora_taken", taken, [Value(self.name), Value(expanded)]

    def _fill(self) -> LoraFill:
        return LoraFill(
            role=f"{self.base.role}.lora_fill", elems=self.blocks.rows * self.a.n,
            launches=self.experts.fills * self.blocks.live * self.apart, stream=self._stream(self.beside),
            activations=self.base.activations, layer=self.base.layer,
        )  # fmt: skip

    @property
    def _rank(self) -> Num:
        """Rank of all slices on this device."""
        return self.a.n / (1.0 if self.base.split is Sharding.ROW else self.a.further)

    def _shrink(self) -> ExpertLoraShrink:
        a = self.a
        return ExpertLoraShrink(
            role=f"{self.base.role}.lora_shrink", m=self.blocks.rows, n=self._rank, k=a.k, adapters=a.adapters,
            slices=float(a.slices), pairs=a.factors_read * self.blocks.live, held=a.parameters,
            inputs=self.base.activations, weights=a.weights, activations=self.base.activations, layer=self.base.layer,
            stream=self._stream(self.beside), residency=a.residency,
            **self.blocks.tiles(
                self.experts.shrink, self._rank / a.slices, a.k, float(a.slices), launches=1.0, start=1.0
            ),
        )  # fmt: skip

    def _together(self) -> Collective:
        """The collectives that complete a shrink over a part of the ranks or of the inputs."""
        row = self.base.split is Sharding.ROW
        kind, role = (AllReduce, "all_reduce") if row else (AllGather, "all_gather")
        return kind(
            role=role, elems=self.blocks.rows * self.a.n, group=self.b.further if row else self.a.further,
            activations=self.base.activations, layer=self.base.layer, adapter=True,
        )  # fmt: skip

    def _expand(self) -> ExpertLoraExpand:
        """If one kernel does both, it starts with the shrink, and the steps of the expand follow."""
        b, slices = self.b, float(self.b.slices)
        waits = self.profile.side_waits * float(self.beside and not self.delta)
        touched = b.n / (b.further if self.base.split is Sharding.ROW else 1.0)
        return ExpertLoraExpand(
            role=f"{self.base.role}.lora_expand", m=self.base.m, width=self.base.n, rows=self.blocks.rows, n=touched,
            k=b.k, adapters=b.adapters, slices=slices, pairs=b.factors_read * self.blocks.live, held=b.parameters,
            hidden=self.base.activations, weights=b.weights, activations=self.base.activations, parts=self.base.parts,
            layer=self.base.layer, in_place=not self.delta, stream=self._stream(self.delta), residency=b.residency,
            **self.blocks.tiles(
                self.experts.expand, touched / slices, b.k, slices, launches=self.apart + waits, start=self.apart
            ),
        )  # fmt: skip
