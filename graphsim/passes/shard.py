"""Tensor and sequence parallelism by layout propagation; knows nothing of adapters.

Every value is replicated, sharded over features, a partial sum, or sharded over tokens. Linear ops carry a layout
on, all others say what they need, and a collective appears exactly where a layout does not fit
(Megatron-LM, arXiv 1909.08053; sequence parallelism: arXiv 2205.05198).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import Enum
from typing import ClassVar

import networkx as nx
import numpy as np

from graphsim.graph import Pass, Rule, Stage, Step, Value, rewrite
from graphsim.ops import (
    AllGather,
    AllReduce,
    AllToAll,
    Collective,
    Compute,
    Elementwise,
    EncoderOutput,
    Gemm,
    Input,
    Join,
    LoraAdd,
    Norm,
    Op,
    ReduceScatter,
    Repeat,
    Sharding,
    Slice,
)
from graphsim.ops.structure import last_node
from graphsim.units import Num


class Layout(Enum):
    """How a value lies on the devices of a tensor-parallel group."""

    REPLICATED = "replicated"
    SHARDED = "sharded"
    PARTIAL = "partial"
    SEQUENCE = "sequence"


R, S, P, SEQ = Layout.REPLICATED, Layout.SHARDED, Layout.PARTIAL, Layout.SEQUENCE

_COLLECTIVES: dict[tuple[Layout, Layout], type[Collective]] = {
    (P, R): AllReduce,
    (P, SEQ): ReduceScatter,
    (S, R): AllGather,
    (SEQ, R): AllGather,
    (P, S): ReduceScatter,
    (S, SEQ): AllToAll,
    (SEQ, S): AllToAll,
}
"""What it takes to bring a value from one layout to another."""

_FIXED: dict[Sharding, tuple[Layout | None, Layout]] = {
    Sharding.COLUMN: (R, S),
    Sharding.ROW: (S, P),
    Sharding.VOCAB: (None, P),
    Sharding.WHOLE: (R, R),
    Sharding.DEAL_OUT: (R, S),
    Sharding.DEALT: (S, S),
    Sharding.COLLECT: (None, P),
    Sharding.TOKENS: (SEQ, SEQ),
}
"""The layout that an op wants of its inputs (None: as they come) and the result's, where it is always the same."""

_SUFFIX = {AllReduce: "all_reduce", ReduceScatter: "reduce_scatter", AllGather: "all_gather", AllToAll: "all_to_all"}


def shard(graph: nx.DiGraph, tp: Num, sequence_parallel: bool = False) -> nx.DiGraph:
    """The share of one of `tp` devices, with the collectives that its layouts demand.

    sequence_parallel: the residual stream is cut over tokens, so all-reduces become reduce-scatter and all-gather
    On one device, the graph stays as it is.
    """
    if np.all(np.less_equal(tp, 1)):
        return graph
    return Shard(tp=tp, sequence_parallel=sequence_parallel)(graph)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard(Pass):
    """Cuts a graph over `tp` devices; see `shard`.

    is_body: whether the graph is a repeat's body, whose result must have the layout of the value that it takes
    """

    stage: ClassVar[Stage] = "sharded"

    tp: Num
    sequence_parallel: bool = False
    is_body: bool = False

    def body(self, repeat: Repeat) -> nx.DiGraph:
        """Sharded by itself."""
        return rewrite(repeat.body, replace(self, is_body=True))

    def rule(self, graph: nx.DiGraph) -> Rule:
        """Behind the last node, a partial or cut result is completed for whoever takes it."""
        residual = SEQ if self.sequence_parallel else R
        sharder, last = _Sharder(self.tp, residual), last_node(graph)

        def rule(name: str, op: Op, inputs: list[Value]) -> Iterator[Step]:
            yield from sharder.steps(name, op, inputs)
            if name == last and (self.is_body or sharder.layouts[name] is not R):
                yield from sharder.bring(Value(name), sharder.layouts[name], residual)

        return rule


class _Sharder:
    """What is known of one graph (or body): each value's layout and the collectives already added."""

    def __init__(self, tp: Num, residual: Layout) -> None:
        self.tp, self.residual = tp, residual
        self.layouts: dict[str, Layout] = {}
        self.whole: dict[str, Op] = {}
        self.brought: dict[tuple[Value, Layout], str] = {}

    def steps(self, name: str, op: Op, inputs: list[Value]) -> Iterator[Step]:
        """Cut the op as its inputs' layouts say, behind the collectives that it needs."""
        flowing = [value for value in inputs if not self.whole[value.node].constant]
        wanted, layout = self._decide(op, [self.layouts[value.node] for value in flowing])
        placed = []
        for value in inputs:
            target = wanted if wanted is not None and value in flowing else self.layouts[value.node]
            yield from self.bring(value, self.layouts[value.node], target)
            placed.append(self._brought(value, target))
        self.layouts[name], self.whole[name] = layout, op
        mine = self._cut(op, layout)
        if op.constant:
            yield from self._constant(name, op, mine, placed)
            return
        if isinstance(op, Norm) and isinstance(mine, Norm) and layout is S and op.shared(self.tp):
            sums = list(self._square_sums(name, op, placed[0]))
            yield from sums
            mine, placed = replace(mine, sums=sums[-1][1].out_elems), [*placed, Value(sums[-1][0])]
        if isinstance(mine, LoraAdd) and layout is P and S in {self.layouts[value.node] for value in placed}:
            mine = replace(mine, share=1.0 / self.tp)
        yield name, mine, placed

    def _constant(self, name: str, whole: Op, mine: Op, placed: list[Value]) -> Iterator[Step]:
        """What takes weights alone, between the collectives that it needs; users take what the last of them yields."""
        ahead, behind = whole.exchanges(self.tp)
        if ahead is not None:
            brought = f"{name}.{_SUFFIX[type(ahead)]}_ahead"  # type: ignore[index]
            yield brought, ahead, []
            placed = [*placed, Value(brought)]
        yield name, mine, placed
        if behind is not None:
            last = f"{name}.{_SUFFIX[type(behind)]}"  # type: ignore[index]
            yield last, behind, [Value(name)]
            self.layouts[last], self.whole[last] = self.layouts[name], whole

    def _cut(self, op: Op, layout: Layout) -> Op:
        always = isinstance(op, Gemm) or op.placement in (Sharding.VOCAB, Sharding.COLLECT, Sharding.ROW)
        if layout is SEQ:
            return op.cut_tokens(self.tp)
        return op.cut(self.tp) if always or layout is S else op

    def _square_sums(self, name: str, op: Norm, rows: Value) -> Iterator[Step]:
        """What a norm of slices takes beside them where devices share its groups: the sums of all their squares."""
        summed, sharing = op.squares(self.tp)
        yield f"{name}.square_sum", summed, [rows]
        gathered = AllReduce(
            role=f"{op.role}.all_reduce", elems=summed.rows, group=sharing, activations=summed.activations,
            layer=op.layer,
        )  # fmt: skip
        yield f"{name}.all_reduce", gathered, [Value(f"{name}.square_sum")]

    def _decide(self, op: Op, arriving: list[Layout]) -> tuple[Layout | None, Layout]:
        """The layout that all inputs must have (None: as they come) and the result's."""
        sharding = op.placement
        if op.constant:
            return None, S
        if isinstance(op, Repeat):
            return self.residual, self.residual
        if isinstance(op, Input | EncoderOutput):
            return None, self.residual
        if sharding in _FIXED:
            return _FIXED[sharding]
        if sharding is Sharding.REPLICATED:
            return (None, P) if set(arriving) == {P} else (R, R)
        if sharding is Sharding.LINEAR:
            return self._linear(op, set(arriving))
        return self._local(op, set(arriving))

    def _linear(self, op: Op, arriving: set[Layout]) -> tuple[Layout | None, Layout]:
        if len(arriving) == 1:
            return None, arriving.pop()
        in_place = not isinstance(op, LoraAdd) or op.in_place
        if arriving == {R, S}:
            return (S, S) if in_place else (R, R)
        if arriving == {P, S} and isinstance(op, LoraAdd) and in_place:  # a slice goes into its place of the sum
            return None, P
        return self.residual, self.residual

    def _local(self, op: Op, arriving: set[Layout]) -> tuple[Layout | None, Layout]:
        if isinstance(op, Norm) and not op.local:
            target = self.residual if arriving & {P, SEQ} else R
            return target, target
        if arriving == {R, S}:  # heads that all devices share stay whole; element by element, all are cut alike
            return (S if isinstance(op, Elementwise | Compute | Join) and op.in_elems is not None else None), S
        if len(arriving) <= 1 and arriving <= {R, S}:
            return None, S if S in arriving else R
        if arriving == {SEQ}:
            return None, SEQ
        return R, R

    def bring(self, value: Value, have: Layout, target: Layout) -> Iterator[Step]:
        """The step that brings a value from one layout to another, unless it is there already."""
        if have is target or (value, target) in self.brought:
            return
        source = self.whole[value.node]
        sizes = source.out_parts
        elems = sum((sizes[part] for part in value.parts), start=0.0) if value.parts else source.out_elems
        if isinstance(source, Repeat) and have is SEQ:  # its body is cut already, and leaves a part
            elems = elems * self.tp
        kind = _COLLECTIVES.get((have, target))
        suffix = _SUFFIX[kind] if kind else "slice"
        name = ".".join([value.node, *value.parts, suffix])
        if name in self.whole:  # one collective cuts over features, the other over tokens
            name += f"_{target.value}"
        adapter = source.adapter and not source.joins_base
        whole = Join(role=suffix, elems=elems, activations=source.activations, layer=source.layer, adapter=adapter)
        self.brought[value, target] = name
        self.layouts[name], self.whole[name] = target, whole
        yield name, self._bringer(kind, whole), [Value(value.node)]

    def _bringer(self, kind: type[Collective] | None, whole: Join) -> Op:
        """The collective, or free slice, that moves a value of the given whole size."""
        role, activations, layer, adapter = whole.role, whole.activations, whole.layer, whole.adapter
        if kind is None:
            part = whole.elems / self.tp
            return Slice(role=role, elems=part, parts=self.tp, activations=activations, layer=layer, adapter=adapter)
        held = whole.elems / self.tp if kind is AllToAll else whole.elems
        return kind(role=role, elems=held, group=self.tp, activations=activations, layer=layer, adapter=adapter)

    def _brought(self, value: Value, target: Layout) -> Value:
        name = self.brought.get((value, target))
        return Value(name) if name else value
