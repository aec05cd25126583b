"""Gradients of adapters other than plain LoRA: DoRA's magnitudes, trained vectors, weights computed from parameters."""

from __future__ import annotations

from dataclasses import fields

import numpy as np

from graphsim.graph import Value
from graphsim.ops import ElementwiseBackward, VectorGradient
from graphsim.ops.adapter_values import ColumnScale, RotateInput
from graphsim.ops.adapter_weights import BuiltWeights
from graphsim.ops.gradients.elementwise import ColumnScaleBackward
from graphsim.ops.gradients.variants import (
    BuiltWeightsBackward,
    DoraScaleBackward,
    RotationGradient,
    RotationInputGradient,
)
from graphsim.ops.lora_variants import DoraNorm, DoraScale, GroupPool, VectorScale
from graphsim.ops.overrides import OverrideResult
from graphsim.passes.gradients.forward_node import ForwardNode
from graphsim.passes.gradients.rules import gradients
from graphsim.passes.gradients.scope import Storage, greater, scaled
from graphsim.symbolic.questions import may_be_nonzero
from graphsim.units import Num


@gradients.register
def _dora_scale(op: DoraScale, here: ForwardNode) -> None:
    """PEFT 0.21, `tuners/lora/dora.py`: the norm is detached, so that only magnitudes get a gradient through it."""
    joined, *others = here.flowing
    norm = next((taken for taken in here.inputs if isinstance(taken.op, DoraNorm)), None)
    trained: Num = norm.need if norm else 0.0
    live = greater(here.need, trained)
    if not may_be_nonzero(live):
        return
    wide, elems = op.factors, op.rows * op.n
    kept = [
        here.keep_own("base", elems, trained),
        here.keep_own("lora", elems, trained, form=wide),
        here.keep_own("scales", 2.0 * op.n, live, form=wide),
    ]
    back = DoraScaleBackward(m=scaled(op.m, live), n=op.n, units=op.units, factors=wide, activations=op.activations)
    given = here.emit("backward", back, [*here.dy, *kept])
    for taken in (joined, *others):
        here.give(taken, [given])
    if norm is not None and isinstance(norm.op, DoraNorm) and may_be_nonzero(trained):
        kept = [*kept[:2], *_kept_norm(norm.value.node, norm.op, norm.need, here)]
        sums = VectorGradient(rows=scaled(op.rows, trained), width=op.n, reads=3.0, activations=op.activations)
        here.emit("wgrad", sums, [*here.dy, *kept])


def _kept_norm(node: str, norm: DoraNorm, live: Num, here: ForwardNode) -> list[Value]:
    """The norms that divide the magnitudes; their inputs are packed too, and freed on detach."""
    packed = norm.k * norm.k + norm.k * norm.rank
    return [
        here.scope.keep(Storage(node, what="norms"), norm.n, live, norm.factors),
        here.scope.keep(Storage(node, what="packed"), packed, live, norm.factors, takes_memory=False),
    ]


@gradients.register
def _vector_scale(op: VectorScale, here: ForwardNode) -> None:
    """A columnwise product: dx = v dy, dv the column sums of x dy."""
    need, trained = here.need, here.trained
    x = here.flowing[0]
    if may_be_nonzero(trained):
        kept = here.keep_input(x, trained)
        rows = scaled(op.elems, trained) / np.maximum(op.width, 1.0)
        sums = VectorGradient(rows=rows, width=op.width, reads=2.0, activations=op.activations)
        here.emit("wgrad", sums, [*here.dy, *kept])
    if may_be_nonzero(need):
        back = ElementwiseBackward(elems=scaled(op.elems, need), reads=0.0, activations=op.activations)
        here.give(x, [here.emit("backward", back, here.dy)])


@gradients.register
def _column_scale(op: ColumnScale, here: ForwardNode) -> None:
    """The same for the rows that have an adapter, and for the numbers, which PyTorch saves as a separate tensor."""
    need, trained = here.need, here.trained
    x, live = here.flowing[0], np.minimum(op.rows, 1.0)
    if may_be_nonzero(trained):
        kept = here.keep_input(x, scaled(live, trained))
        sums = VectorGradient(
            rows=scaled(op.rows, trained), width=op.n, vectors=op.vectors, reads=2.0, activations=op.activations
        )
        here.emit("wgrad", sums, [*here.dy, *kept])
    if may_be_nonzero(need):
        scales = here.keep_own("scales", op.vectors * op.n, scaled(live, need), form=op.weights)
        back = ColumnScaleBackward(
            elems=scaled(op.m * op.n, need), reads=0.0, steps=op.steps, activations=op.activations
        )
        here.give(x, [here.emit("backward", back, [*here.dy, scales])])


@gradients.register
def _pool(op: GroupPool, here: ForwardNode) -> None:
    """An average's gradient is spread over its inputs."""
    if may_be_nonzero(here.need):
        back = ElementwiseBackward(elems=scaled(op.m * op.k, here.need), reads=0.0, activations=op.activations)
        here.give(here.flowing[0], [here.emit("backward", back, here.dy)])


@gradients.register
def _rotation(op: RotateInput, here: ForwardNode) -> None:
    """dx = dy R^T; the matrices' gradient x^T dy is passed on to their parameters."""
    x = here.flowing[0]
    if may_be_nonzero(here.need):
        same = {f.name: getattr(op, f.name) for f in fields(RotateInput)}
        turned = {"inputs": op.width, "width": op.inputs, "m": scaled(op.m, here.need)}
        here.give(x, [here.emit("dgrad", RotationInputGradient(**same | turned), here.dy)])
    for made in here.made_of:
        same = {f.name: getattr(op, f.name) for f in fields(RotateInput)}
        kept = here.keep_input(x, made.need)
        gradient = RotationGradient(**same | {"rows": scaled(op.rows, made.need)})
        here.give(made, [here.emit("wgrad", gradient, [*kept, *here.dy])])


@gradients.register
def _made(op: BuiltWeights, here: ForwardNode) -> None:
    """The parameters' gradient, from that of the weights computed from them."""
    same = {f.name: getattr(op, f.name) for f in fields(BuiltWeights)}
    kept = here.keep_own("made", op.elems, op.trained, form=op.made)
    back = BuiltWeightsBackward(**same | {"copies": scaled(op.copies, op.trained)})
    here.emit("backward", back, [*here.dy, kept])


@gradients.register
def _result(op: OverrideResult, here: ForwardNode) -> None:
    """The one of the two that ran takes the gradient."""
    for taken in here.flowing:
        if may_be_nonzero(taken.elems):
            here.give(taken, here.dy)
