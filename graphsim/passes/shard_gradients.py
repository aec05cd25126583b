"""Layouts of the gradients of weights, and of values saved by autograd, in a tensor-parallel group.

A weight's gradient is sharded like the weight. If the weight is replicated and each device has processed different
rows, or holds a partial sum, the gradient is a partial sum, which is all-reduced once for each optimizer step
(Megatron-LM, `core/distributed/finalize_model_grads.py`, does so for the norms under sequence parallelism).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from graphsim.ops import (
    AllReduce,
    BuiltWeightsBackward,
    EmbeddingBackward,
    HeadWeightGradient,
    KeptValue,
    Op,
    RotationGradient,
    Sharding,
    VectorGradient,
    WeightGradient,
)
from graphsim.ops.direction import Direction
from graphsim.ops.formats import FORMATS
from graphsim.ops.gradients.experts import ExpertFactorGradient, ExpertWeightGradient
from graphsim.passes.layouts import SEQ, Layout, P, R, S
from graphsim.units import Num

WHOLE = ("targets", "total", "ids")
"""Saved storages that are replicated, however other values are sharded."""

LOSS_SUMS = 3.0
"""Numbers per row that devices exchange for a loss over cut logits: the largest, the sum, the target's (Megatron-LM,
`core/tensor_parallel/cross_entropy.py`)."""


@dataclass(slots=True)
class ShardedNode:
    """A node of the forward pass: its layout, the whole operation, and a device's share of it."""

    layout: Layout
    whole: Op
    mine: Op


@dataclass(slots=True)
class ShardedNodes:
    """The sharded nodes of the forward pass, by the names that saved values refer to; and the repeats' names."""

    made: dict[str, ShardedNode] = field(default_factory=dict)
    names: dict[int, str] = field(default_factory=dict)


def kept_as(op: KeptValue, made: ShardedNode, ways: Num) -> tuple[Layout, KeptValue]:
    """The layout of a saved value, and a device's share of it: that of the node whose storage it is."""
    if op.what in WHOLE:
        return R, op
    if op.what == "weights":
        cut = made.whole.placement in (Sharding.COLUMN, Sharding.ROW, Sharding.DEALT)
        return (S, op.cut(ways)) if cut else (R, op)
    if op.what:
        return made.layout, op.cut(ways) if made.layout in (S, SEQ) else op
    whole, mine = (each.out_parts[op.part] if op.part else each.out_elems for each in (made.whole, made.mine))
    return made.layout, replace(op, elems=op.elems * mine / np.maximum(whole, 1.0))


WeightsGradient = (
    WeightGradient
    | HeadWeightGradient
    | VectorGradient
    | EmbeddingBackward
    | RotationGradient
    | BuiltWeightsBackward
    | ExpertWeightGradient
    | ExpertFactorGradient
)


def wanted_by(op: WeightsGradient, arriving: Sequence[Layout], kept: Sequence[bool]) -> tuple[list[Layout], Layout]:
    """The layouts that the gradient of weights wants of its inputs, and that of the result.

    arriving: the inputs' layouts
    kept: which of them are of the forward pass, the others being gradients
    """
    if isinstance(op, EmbeddingBackward) and not op.whole:
        return [R] * len(arriving), S
    if isinstance(op, BuiltWeightsBackward):
        return [S if S in arriving else R] * len(arriving), P if S in arriving else R
    if isinstance(op, ExpertWeightGradient | ExpertFactorGradient):
        lies = SEQ if op.placement is Sharding.TOKENS else S
        return list(arriving), lies
    split = op.cut_as if isinstance(op, RotationGradient) else op.split if isinstance(op, WeightGradient) else None
    if split is Sharding.COLUMN:
        return [R if mine else S for mine in kept], S
    if split is Sharding.ROW:
        return [S if mine else R for mine in kept], S
    if split is Sharding.DEALT or isinstance(op, HeadWeightGradient):
        return [S] * len(arriving), S
    if S in arriving and not isinstance(op, WeightGradient | RotationGradient):
        across = isinstance(op, VectorGradient) and op.across
        return [S] * len(arriving), P if across else S
    if isinstance(op, VectorGradient):  # the sum that the norm's own gradient uses, too
        return _replicated([R if layout is P else layout for layout in arriving], kept)
    return _replicated([R if layout is S else layout for layout in arriving], kept)


def _replicated(arriving: Sequence[Layout], kept: Sequence[bool]) -> tuple[list[Layout], Layout]:
    """Layouts for replicated weights: the product of a replicated value and a partial sum is a partial sum."""
    if SEQ in arriving:
        return [SEQ] * len(arriving), P
    partial = {mine for layout, mine in zip(arriving, kept, strict=True) if layout is P}
    if len(partial) == 1:
        side = partial.pop()
        return [P if mine is side else R for mine in kept], P
    return [R] * len(arriving), R


def summed_gradient(op: Op, group: Num) -> AllReduce:
    """The collective that completes the gradient of replicated weights, once per optimizer step."""
    return AllReduce(
        role=f"{op.role}.all_reduce", elems=op.out_elems, group=group, activations=op.activations, layer=op.layer,
        adapter=op.adapter, direction=Direction.UPDATE,
    )  # fmt: skip


def summed_loss(op: Op, rows: Num, group: Num) -> AllReduce:
    """The exchange between devices for the loss of logits that are sharded over columns."""
    return AllReduce(
        role=f"{op.role}.all_reduce", elems=LOSS_SUMS * rows, group=group, activations=FORMATS["fp32"],
        layer=op.layer, direction=op.direction,
    )  # fmt: skip
