"""Gradients of GEMMs, of tables, and of the factors of an adapter."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np

from graphsim.errors import GraphError
from graphsim.graph import Value
from graphsim.ops import (
    Embedding,
    EmbeddingBackward,
    Gemm,
    GroupedGemm,
    HeadGemm,
    HeadInputGradient,
    HeadWeightGradient,
    InputGradient,
    LoraAdd,
    LoraAddBackward,
    LoraGemm,
    LoraInput,
    LoraInputBackward,
    Sharding,
    VectorGradient,
    WeightGradient,
)
from graphsim.ops.gradients.doubled import AccumulatedGradient
from graphsim.ops.gradients.linear import turned
from graphsim.ops.routed import RoutedGemm
from graphsim.passes.gradients.forward_node import ForwardNode
from graphsim.passes.gradients.rules import gradients
from graphsim.passes.gradients.scope import WEIGHTS, greater, scaled
from graphsim.passes.trained import not_empty
from graphsim.symbolic.questions import may_be_nonzero
from graphsim.units import Num

INT64_BYTES = 8.0


@gradients.register
def _gemm(op: Gemm, here: ForwardNode) -> None:
    trained, biases = here.trained, here.trained_biases
    if may_be_nonzero(here.need):
        _input_gradient(op, here, here.need)
    _weight_gradient(op, here, trained)
    if op.bias and may_be_nonzero(trained):
        biases = trained
    if may_be_nonzero(biases):
        gradient = VectorGradient(rows=scaled(op.m, biases), width=op.n, activations=op.activations)
        here.emit("bias_grad", gradient, here.dy)


def _input_gradient(op: Gemm, here: ForwardNode, live: Num, blocks: Num = 1.0, kept: Iterable[Value] = ()) -> None:
    dgrad = InputGradient(
        m=scaled(op.m, live), n=op.k, k=op.n, split=turned(op.split), units=op.units, weights=op.weights, blocks=blocks,
        activations=op.activations, shared=True, linear=op.linear, tags=op.tags, output_parts=op.parts,
    )  # fmt: skip
    dx = here.emit("dgrad", dgrad, [*here.dy, *kept])
    here.deal([(dx, op.m * op.k)])


def _weight_gradient(op: Gemm, here: ForwardNode, trained: Num, blocks: Num = 1.0) -> None:
    """The gradient of weights that are trained, or of weights computed from trained parameters, to which it is passed
    on.
    """
    made = here.made_of
    for taken in made:
        trained = greater(trained, taken.need)
    if may_be_nonzero(trained):
        kept = here.keep_inputs(trained)
        given = here.emit("wgrad", _wgrad(op, trained, blocks), [*kept, *here.dy])
        for taken in made:
            here.give(taken, [given])


def _wgrad(op: Gemm, live: Num, blocks: Num = 1.0) -> WeightGradient:
    return WeightGradient(
        m=op.k, n=op.n, k=scaled(op.m, live), split=op.split, units=op.units, weights=op.weights, blocks=blocks,
        activations=op.activations, gradients=op.weights if op.adapter else op.activations, shared=True,
        linear=op.linear, tags=op.tags, output_parts=op.parts,
    )  # fmt: skip


@gradients.register
def _grouped(op: GroupedGemm, here: ForwardNode) -> None:
    """Blocks of a block-diagonal GEMM."""
    whole = replace(op, k=op.k * op.groups, split=Sharding.DEALT)
    if may_be_nonzero(here.need):
        _input_gradient(whole, here, here.need, op.groups)
    _weight_gradient(whole, here, here.trained, op.groups)


@gradients.register
def _by_heads(op: HeadGemm, here: ForwardNode) -> None:
    """The gradient as for any GEMM, head by head."""
    need, trained = here.need, here.trained
    same: dict[str, Any] = {"heads": op.heads, "weights": op.weights, "activations": op.activations, "split": op.split}
    if may_be_nonzero(need):
        back = HeadInputGradient(m=scaled(op.m, need), n=op.k, k=op.n, **same)
        here.deal([(here.emit("dgrad", back, here.dy), op.heads * op.m * op.k)])
    if may_be_nonzero(trained):
        gradient = HeadWeightGradient(m=op.k, n=op.n, k=scaled(op.m, trained), **same)
        here.emit("wgrad", gradient, [*here.keep_inputs(trained), *here.dy])


@gradients.register
def _routed(op: RoutedGemm, here: ForwardNode) -> None:
    raise GraphError(
        f"node '{here.name}' multiplies by weights that a router chooses, for which there is no gradient rule; "
        "training of this model cannot be simulated"
    )


@gradients.register
def _factor(op: LoraGemm, here: ForwardNode) -> None:
    """dA = x^T (dy B^T) and dB = (x A)^T dy: never x^T dy, which would be as large as the base's gradient."""
    live = not_empty(op)
    need, trained = scaled(live, here.need), here.trained
    if may_be_nonzero(need):
        copied = here.rules.autocast and op.weights.bytes > op.activations.bytes
        kept = []
        if copied or op.shared:
            weights = op.n * op.k / op.blocks
            kept.append(here.keep_own(WEIGHTS, weights, need, takes_memory=copied))
        _input_gradient(op, here, need, op.blocks, kept)
    _weight_gradient(op, here, trained, op.blocks)


@gradients.register
def _copy(op: LoraInput, here: ForwardNode) -> None:
    kept = []
    if op.dropout:
        kept.append(here.keep_own("mask", op.elems, here.need, each=here.rules.mask_bytes))
    if may_be_nonzero(here.need):
        back = LoraInputBackward(
            elems=scaled(op.elems, here.need), source=op.activations, activations=op.source, dropout=op.dropout
        )
        dx = here.emit("backward", back, [*here.dy, *kept])
        here.give(here.flowing[0], [dx])


@gradients.register
def _joined(op: LoraAdd, here: ForwardNode) -> None:
    base, *added = here.flowing
    here.give(base, here.dy)
    for taken in added:
        if may_be_nonzero(taken.need):
            live = scaled(np.minimum(op.rows, 1.0), taken.need)
            back = LoraAddBackward(
                m=scaled(op.m, live), n=op.n, source=op.activations, activations=taken.op.activations
            )
            here.give(taken, [here.emit("backward", back, here.dy)])


@gradients.register
def _table(op: Embedding, here: ForwardNode) -> None:
    trained = here.trained
    if may_be_nonzero(trained):
        ids = here.keep_own("ids", op.tokens, trained, each=INT64_BYTES)
        back = EmbeddingBackward(
            tokens=scaled(op.tokens, trained), entries=op.entries, width=op.width, whole=op.whole,
            activations=op.activations,
        )  # fmt: skip
        given = here.emit("wgrad", back, [*here.dy, ids])
        if not op.whole and here.scope.tied:
            total = AccumulatedGradient(elems=scaled(op.entries * op.width, trained), activations=op.activations)
            here.emit("wgrad.add_gradients", total, [given])
