"""The end of a step: gradient clipping and the optimizer's update."""

from __future__ import annotations

from collections.abc import Iterator

import networkx as nx
import numpy as np

from graphsim.graph import Value, add, walk
from graphsim.ops import AllReduce, Direction, Op
from graphsim.ops.base import BF16
from graphsim.ops.formats import FORMATS
from graphsim.ops.update import UpdateWeights
from graphsim.symbolic.questions import may_be_nonzero
from graphsim.training.setup import TrainingSetup
from graphsim.training.stored import Weights, gradient_bytes, is_wide, weights_of
from graphsim.units import Num

FP32 = FORMATS["fp32"]

NORM_READS, SCALE_MOVES = 1.0, 2.0
"""Passes over the gradients: their norm reads them, its factor is always multiplied in
(`torch.nn.utils.clip_grad_norm_`, which avoids a device synchronisation).
"""


def append_update(graph: nx.DiGraph, trained: nx.DiGraph, setup: TrainingSetup, share: Num, behind: list[str]) -> None:
    """Add the clipping and the optimizer's step to a device's graph.

    trained: the sharded graph with the trained weights, weights in the formats they are stored in
    share: part of the trained weights that this device updates
    behind: nodes that it waits for
    """
    after = [Value(name) for name in behind]
    for name, op in update_steps(trained, setup, share):
        after = [Value(add(graph, name, op, after))]


def update_steps(graph: nx.DiGraph, setup: TrainingSetup, share: Num) -> Iterator[tuple[str, Op]]:
    """The steps in launch order.

    graph: sharded, of one stage, weights in the formats they are stored in
    """
    groups = dict(trained_groups(graph, setup))
    if setup.recipe.clips:
        for wide, sums in groups.items():
            moved = gradient_bytes(setup, wide) * (NORM_READS + SCALE_MOVES)
            yield (
                f"clip_{_name(wide)}",
                _pass("clip_gradients", sums, share, moved=moved, kernels=3.0),
            )
        reach = setup.deployment.parallelism.tp * setup.deployment.parallelism.pp
        norm = AllReduce(role="gradient_norm.all_reduce", elems=1.0, group=reach, direction=Direction.UPDATE)
        yield "gradient_norm.all_reduce", norm
    for wide, sums in groups.items():
        yield f"update_{_name(wide)}", _optimizer(setup, wide, sums, share)


def trained_groups(graph: nx.DiGraph, setup: TrainingSetup) -> Iterator[tuple[bool, list[tuple[Weights, Num]]]]:
    """Trained tensors with their counts, separately for 16 bits and fp32."""
    found: dict[bool, list[tuple[Weights, Num]]] = {}
    for _, op, times in walk(graph):
        if op.direction is Direction.FORWARD and may_be_nonzero(op.trained) and may_be_nonzero(op.parameters):
            wide = is_wide(op, setup)
            found.setdefault(wide, []).extend((weights, times * op.trained) for weights in weights_of(op))
    yield from found.items()


def _optimizer(setup: TrainingSetup, wide: bool, sums: list[tuple[Weights, Num]], share: Num) -> UpdateWeights:
    """All passes of the optimizer over tensors of one format; a master copy is written to 16 bits after it."""
    optimizer, master = setup.optimizer, setup.recipe.master_weights and not wide
    fp32 = wide or master
    moved: Num = 0.0
    flops: Num = 0.0
    decomposed: Num = 0.0
    waited_s: Num = 0.0
    tensors = sum((weights.count * times for weights, times in sums), start=0.0)
    for weights, times in sums:
        count = weights.count * times
        moved = moved + count * optimizer.traffic_bytes(weights.n, weights.k, fp32=fp32, table=weights.table)
        products = sum(
            (product.flops for product in optimizer.products(weights.n, weights.k, table=weights.table)), start=0.0
        )
        flops = flops + count * products
        decomposed = decomposed + count * optimizer.decomposition_flops(weights.n, weights.k, table=weights.table)
        waited_s = waited_s + count * optimizer.waited_s(weights.k, table=weights.table)
    elems = sum((weights.elems * times for weights, times in sums), start=0.0)
    each = moved / _least(elems) + (BF16.bytes if master else 0.0)
    return UpdateWeights(
        role="update", elems=elems * share, moved_bytes=each, tensors=tensors, kernels=optimizer.kernels,
        tensor_kernels=optimizer.tensor_kernels, called_s=waited_s,
        matrix_flops=flops / _least(elems), decomposed_flops=decomposed / _least(elems), direction=Direction.UPDATE,
    )  # fmt: skip


def _pass(role: str, sums: list[tuple[Weights, Num]], share: Num, *, moved: Num, kernels: Num) -> UpdateWeights:
    elems = sum((weights.elems * times for weights, times in sums), start=0.0)
    tensors = sum((weights.count * times for weights, times in sums), start=0.0)
    return UpdateWeights(
        role=role, elems=elems * share, moved_bytes=moved, tensors=tensors, kernels=kernels, direction=Direction.UPDATE
    )


def _least(elems: Num) -> Num:
    """The divisor of an average over elements: 1 if there are none."""
    return np.maximum(elems, 1.0)


def _name(wide: bool) -> str:
    return "fp32" if wide else "bf16"
