"""Tensor and sequence parallelism by layout propagation; knows nothing of adapters.

Every value is replicated, sharded over features, a partial sum, or sharded over tokens. Linear ops propagate a layout,
all others state the one that they need, and a collective is inserted exactly where layouts differ (Megatron-LM, arXiv
1909.08053; sequence parallelism: arXiv 2205.05198).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import ClassVar

import networkx as nx
import numpy as np

from graphsim.graph import Pass, Rule, Stage, Step, Value, rewrite
from graphsim.graph.building import require_graph
from graphsim.ops import (
    AllReduce,
    AllToAll,
    Collective,
    Compute,
    Elementwise,
    EncoderOutput,
    Gemm,
    Input,
    InputGradient,
    Join,
    KeptValue,
    LoraAdd,
    Loss,
    Norm,
    NormBackward,
    Op,
    Repeat,
    Sharding,
    Slice,
)
from graphsim.ops.structure import last_node
from graphsim.passes.layouts import COLLECTIVES, FIXED, SEQ, SUFFIX, Layout, P, R, S
from graphsim.passes.shard_gradients import (
    ShardedNode,
    ShardedNodes,
    WeightsGradient,
    kept_as,
    summed_gradient,
    summed_loss,
    wanted_by,
)
from graphsim.units import Num, checked_number


def shard(graph: nx.DiGraph, tp: Num, sequence_parallel: bool = False) -> nx.DiGraph:
    """The part of a graph that one of `tp` devices runs, with the collectives that its layouts require.

    graph: the logical graph of a step
    tp: tensor-parallel degree
    sequence_parallel: shard the residual stream over tokens, so that all-reduces become reduce-scatter and all-gather
    With one device, the graph does not change. Raises ConfigError unless `tp` holds whole numbers from 1 up.
    """
    require_graph(graph)
    tp = checked_number("tp", tp, 1)
    if np.all(np.less_equal(tp, 1)):
        return graph
    return Shard(tp=tp, sequence_parallel=sequence_parallel)(graph)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard(Pass):
    """Shards a graph over `tp` devices; see `shard`.

    is_body: whether the graph is a repeat's body, whose result must have the layout of its input
    known: for a training step, the sharded nodes of the forward pass
    repeat: the repeat whose body it is
    """

    stage: ClassVar[Stage] = "sharded"

    tp: Num
    sequence_parallel: bool = False
    is_body: bool = False
    known: ShardedNodes = field(default_factory=ShardedNodes, compare=False, repr=False)
    repeat: str = ""

    def body(self, repeat: Repeat) -> nx.DiGraph:
        """The body is sharded separately."""
        return rewrite(repeat.body, replace(self, is_body=True, repeat=self.known.names.get(id(repeat), "")))

    def rule(self, graph: nx.DiGraph) -> Rule:
        """After the last node, a partial or sharded result is completed for its consumers."""
        residual = SEQ if self.sequence_parallel else R
        sharder, last = _Sharder(self.tp, residual, self.known, self.repeat), last_node(graph)
        self.known.names |= {id(op): name for name, op in graph.nodes(data="op") if isinstance(op, Repeat)}

        def rule(name: str, op: Op, inputs: list[Value]) -> Iterator[Step]:
            yield from sharder.steps(name, op, inputs)
            if name == last and not op.ends and (self.is_body or sharder.layouts[name] is not R):
                yield from sharder.bring(Value(name), sharder.layouts[name], residual)

        return rule


class _Sharder:
    """The state of one graph (or body): each value's layout and the collectives already added."""

    def __init__(self, tp: Num, residual: Layout, known: ShardedNodes, repeat: str) -> None:
        self.tp, self.residual, self.known, self.repeat = tp, residual, known, repeat
        self.layouts: dict[str, Layout] = {}
        self.mine: dict[str, Op] = {}
        self.whole: dict[str, Op] = {}
        self.brought: dict[tuple[Value, Layout], str] = {}

    def steps(self, name: str, op: Op, inputs: list[Value]) -> Iterator[Step]:
        """Shard the op according to its inputs' layouts, after the collectives that it needs."""
        if isinstance(op, KeptValue):
            self.layouts[name], kept = kept_as(op, self._made(op), self.tp)
            self.whole[name], self.mine[name] = op, kept
            yield name, kept, inputs
            return
        if isinstance(op, WeightsGradient):
            yield from self._weights_gradient(name, op, inputs)
            return
        flowing = [value for value in inputs if not self.whole[value.node].constant]
        wanted, layout = self._decide(op, [self.layouts[value.node] for value in flowing])
        placed = []
        for value in inputs:
            target = wanted if wanted is not None and value in flowing else self.layouts[value.node]
            yield from self.bring(value, self.layouts[value.node], target)
            placed.append(self._brought(value, target))
        self.layouts[name], self.whole[name] = layout, op
        mine = self._followed(op, inputs, placed) if op.follows else self._cut(op, layout)
        self.mine[name] = mine
        self.known.made[f"{self.repeat}.{name}" if self.repeat else name] = ShardedNode(layout, op, mine)
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
        if isinstance(op, Loss) and layout is S:
            summed = summed_loss(op, op.rows, self.tp)
            last = f"{name}.all_reduce"
            self.layouts[last], self.whole[last], self.mine[last] = R, summed, summed
            yield last, summed, [Value(name)]

    def _made(self, op: KeptValue) -> ShardedNode:
        """The node whose storage a saved value is: of the forward pass, or its recomputed copy."""
        if not op.again:
            return self.known.made[op.of]
        turn = self.repeat.removesuffix(".backward")
        return self.known.made[f"{self.repeat}.recompute.{op.of.removeprefix(f'{turn}.')}"]

    def _weights_gradient(self, name: str, op: WeightsGradient, inputs: list[Value]) -> Iterator[Step]:
        """The gradient of weights, and its sum over devices if each has a partial sum."""
        arriving = [self.layouts[value.node] for value in inputs]
        kept = [isinstance(self.whole[value.node], KeptValue) for value in inputs]
        wanted, layout = wanted_by(op, arriving, kept)
        placed = []
        for value, target in zip(inputs, wanted, strict=True):
            yield from self.bring(value, self.layouts[value.node], target)
            placed.append(self._brought(value, target))
        self.layouts[name], self.whole[name] = layout, op
        rows = SEQ in wanted or (layout is P and S in wanted)
        mine = op.cut_tokens(self.tp) if rows else op.cut(self.tp) if layout is S else op
        self.mine[name] = mine
        yield name, mine, placed
        if layout is P:
            summed = f"{name}.all_reduce"
            self.layouts[summed], self.whole[summed], self.mine[summed] = R, op, mine
            yield summed, summed_gradient(mine, self.tp), [Value(name)]

    def _constant(self, name: str, whole: Op, mine: Op, placed: list[Value]) -> Iterator[Step]:
        """An operation on weights only, between the collectives that it needs; consumers take the result of the last
        one.
        """
        ahead, behind = whole.exchanges(self.tp)
        if ahead is not None:
            brought = f"{name}.{SUFFIX[type(ahead)]}_ahead"  # type: ignore[index]
            yield brought, ahead, []
            placed = [*placed, Value(brought)]
        yield name, mine, placed
        if behind is not None:
            last = f"{name}.{SUFFIX[type(behind)]}"  # type: ignore[index]
            yield last, behind, [Value(name)]
            self.layouts[last], self.whole[last] = self.layouts[name], whole

    def _followed(self, op: Op, inputs: list[Value], placed: list[Value]) -> Op:
        """Shard it like its inputs."""
        held = sum((size_of(self.whole[value.node], value) for value in inputs), start=0.0)
        mine = sum((size_of(self.mine[value.node], value) for value in placed), start=0.0)
        ways = np.where(np.greater(mine, 0.0), held / np.maximum(mine, 1e-9), 1.0)[()]
        return op.cut(ways)

    def _cut(self, op: Op, layout: Layout) -> Op:
        always = isinstance(op, Gemm) or op.placement in (Sharding.VOCAB, Sharding.COLLECT, Sharding.ROW)
        if layout is SEQ:
            return op.cut_tokens(self.tp)
        return op.cut(self.tp) if always or layout is S else op

    def _square_sums(self, name: str, op: Norm, rows: Value) -> Iterator[Step]:
        """The additional input of a norm of slices whose groups span devices: the complete sums of squares."""
        summed, sharing = op.squares(self.tp)
        yield f"{name}.square_sum", summed, [rows]
        gathered = AllReduce(
            role=f"{op.role}.all_reduce", elems=summed.rows, group=sharing, activations=summed.activations,
            layer=op.layer, direction=op.direction,
        )  # fmt: skip
        yield f"{name}.all_reduce", gathered, [Value(f"{name}.square_sum")]

    def _decide(self, op: Op, arriving: list[Layout]) -> tuple[Layout | None, Layout]:
        """The layout that all inputs must have (None: unchanged) and the result's."""
        sharding = op.placement
        if op.constant:
            return None, S
        if isinstance(op, Repeat):
            return self.residual, self.residual
        if isinstance(op, Input | EncoderOutput):
            return None, self.residual
        if sharding in FIXED:
            return FIXED[sharding]
        if isinstance(op, InputGradient) and sharding is Sharding.REPLICATED and set(arriving) == {SEQ}:
            return None, SEQ
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
        if arriving == {P, S} and isinstance(op, LoraAdd) and in_place:  # a slice is added at its place in the sum
            return None, P
        return self.residual, self.residual

    def _local(self, op: Op, arriving: set[Layout]) -> tuple[Layout | None, Layout]:
        if isinstance(op, Norm | NormBackward) and not op.local:
            target = self.residual if arriving & {P, SEQ} else R
            return target, target
        # heads that all devices share are replicated; elementwise operations are all sharded alike
        if arriving == {R, S}:
            return (S if isinstance(op, Elementwise | Compute | Join) and op.in_elems is not None else None), S
        if len(arriving) <= 1 and arriving <= {R, S}:
            return None, S if S in arriving else R
        if arriving == {SEQ}:
            return None, SEQ
        return R, R

    def bring(self, value: Value, have: Layout, target: Layout) -> Iterator[Step]:
        """The step that converts a value from one layout to another, if they differ."""
        if have is target or (value, target) in self.brought:
            return
        source = self.whole[value.node]
        elems = size_of(source, value)
        if isinstance(source, Repeat) and have is SEQ:  # its body is sharded already and yields a part
            elems = elems * self.tp
        kind = COLLECTIVES.get((have, target))
        suffix = SUFFIX[kind] if kind else "slice"
        name = ".".join([value.node, *value.parts, suffix])
        if name in self.whole:  # one collective shards over features, the other over tokens
            name += f"_{target.value}"
        adapter = source.adapter and not source.joins_base
        whole = Join(
            role=suffix, elems=elems, activations=source.activations, layer=source.layer, adapter=adapter,
            direction=source.direction,
        )  # fmt: skip
        self.brought[value, target] = name
        bringer = self._bringer(kind, whole)
        self.layouts[name], self.whole[name], self.mine[name] = target, whole, bringer
        yield name, bringer, [Value(value.node)]

    def _bringer(self, kind: type[Collective] | None, whole: Join) -> Op:
        """The collective, or free slice, that moves a value of the given whole size."""
        shared = {name: getattr(whole, name) for name in ("role", "activations", "layer", "adapter", "direction")}
        if kind is None:
            return Slice(elems=whole.elems / self.tp, parts=self.tp, **shared)
        held = whole.elems / self.tp if kind is AllToAll else whole.elems
        return kind(elems=held, group=self.tp, **shared)

    def _brought(self, value: Value, target: Layout) -> Value:
        name = self.brought.get((value, target))
        return Value(name) if name else value


def size_of(op: Op, value: Value) -> Num:
    """Elements of a node's result, or of the parts of it that a value is."""
    sizes = op.out_parts
    return sum((sizes[part] for part in value.parts), start=0.0) if value.parts else op.out_elems
