"""Gradients of memory-bound operations: norms, activations, rotations, additions, the loss."""

from __future__ import annotations

import numpy as np

from graphsim.graph import Value
from graphsim.ops import (
    Activation,
    ActivationBackward,
    Add,
    Elementwise,
    ElementwiseBackward,
    ExpertActivation,
    Input,
    Join,
    Loss,
    LossBackward,
    Norm,
    NormBackward,
    Op,
    Rope,
    RopeBackward,
    VectorGradient,
)
from graphsim.ops.gradients.attention import KeysAndValues
from graphsim.passes.gradients.forward_node import ForwardNode
from graphsim.passes.gradients.rules import gradients
from graphsim.passes.gradients.scope import FP32, scaled
from graphsim.symbolic.points import agree
from graphsim.symbolic.questions import may_be_nonzero
from graphsim.units import Num

INT64_BYTES = 8.0
SHIFTED = 2.0
"""Learned vectors of a norm that has a shift as well as a scale."""


@gradients.register
def _norm(op: Norm, here: ForwardNode) -> None:
    """In eager code an RMSNorm saves a copy of x in fp32, and the normalised x if its scale is trained.

    A LayerNorm is always one PyTorch kernel, which saves x, mean and deviation.
    """
    need, trained = here.need, here.trained
    live = np.maximum(need, trained)
    x = here.flowing[0]
    shifted = op.vectors == SHIFTED
    fused = "norm" in here.rules.fused or shifted
    asked = live if fused else need
    kept = []
    if may_be_nonzero(asked):
        kept = here.keep_input(x, asked) if fused else [here.keep_own("fp32", op.out_elems, need, form=FP32)]
        kept.append(here.keep_own("rstd", op.rows * (2.0 if shifted else 1.0), asked, form=FP32))
    if may_be_nonzero(need):
        back = NormBackward(
            rows=scaled(op.rows, need), width=op.width, vectors=op.vectors, local=op.local, groups=op.groups,
            units=op.units, activations=op.activations,
        )  # fmt: skip
        here.give(x, [here.emit("backward", back, [*here.dy, *kept])])
    if may_be_nonzero(trained) and may_be_nonzero(op.vectors):
        normal = kept if fused else [here.keep_own("normalised", op.out_elems, trained)]
        gradient = VectorGradient(
            rows=scaled(op.rows, trained), width=op.width, vectors=op.vectors, reads=2.0,
            across=op.local and not op.own, activations=op.activations,
        )  # fmt: skip
        here.emit("wgrad", gradient, [*here.dy, *normal])


@gradients.register
def _activation(op: Activation, here: ForwardNode) -> None:
    """In eager code, the nonlinearity's result is saved in addition to both factors of the gate."""
    need, gated = here.need, op.reads > 1.0
    if not may_be_nonzero(need):
        return
    kept = here.keep_inputs(need)
    if gated and "activation" not in here.rules.fused:
        kept.append(here.keep_own("gate", op.elems, need))
    _spread(op, here, ActivationBackward, kept, int(op.reads))


def _spread(
    op: Elementwise | ExpertActivation,
    here: ForwardNode,
    kind: type[ElementwiseBackward],
    kept: list[Value],
    reads: int,
) -> None:
    """The gradients of all inputs from one kernel; values of one input are concatenated."""
    sizes = [op.elems] * reads if len(here.flowing) == 1 else [taken.elems for taken in here.flowing]
    back = kind(
        elems=scaled(op.elems, here.need), reads=float(len(kept)), steps=2.0 * getattr(op, "steps", 4.0),
        gives=tuple(scaled(size, here.need) for size in sizes), activations=op.activations,
    )  # fmt: skip
    given = here.emit("backward", back, [*here.dy, *kept])
    here.deal([(Value(given.node, (str(i),)), size) for i, size in enumerate(sizes)])


@gradients.register
def _expert_activation(op: ExpertActivation, here: ForwardNode) -> None:
    """The gradient as for any gated activation."""
    need = here.need
    if may_be_nonzero(need):
        kept = here.keep_inputs(need)
        if op.reads > 1.0 and "activation" not in here.rules.fused:
            kept.append(here.keep_own("gate", op.elems, need))
        _spread(op, here, ActivationBackward, kept, int(op.reads))


@gradients.register
def _elementwise(op: Elementwise, here: ForwardNode) -> None:
    need = here.need
    if not may_be_nonzero(need):
        return
    nonlinear = op.reads > 1.0 or op.steps > 1.0
    kept = here.keep_inputs(need) if nonlinear else []
    _spread(op, here, ElementwiseBackward, kept, 1)


@gradients.register
def _add(op: Add, here: ForwardNode) -> None:
    """The sum's gradient is each input's; that of the sublayer's result, without dropped elements."""
    branch, *others = here.flowing
    gradient = here.dy
    if here.rules.hidden_dropout and may_be_nonzero(branch.need):
        mask = here.keep_own("mask", op.elems, branch.need, each=here.rules.mask_bytes)
        back = ElementwiseBackward(elems=scaled(op.elems, branch.need), reads=0.5, activations=op.activations)
        gradient = [here.emit("dropout_backward", back, [*here.dy, mask])]
    here.give(branch, gradient)
    for taken in others:
        here.give(taken, here.dy)


@gradients.register
def _rope(op: Rope, here: ForwardNode) -> None:
    names, sizes = list(op.out_parts), op.out_parts
    left = list(names)
    needs: dict[str, Num] = dict.fromkeys(names, 0.0)
    parts: list[list[str]] = []
    for taken in here.flowing:
        count = _parts_in(taken.elems, [sizes[name] for name in left])
        mine, left = left[:count], left[count:]
        parts.append(mine)
        needs.update(dict.fromkeys(mine, taken.need))
    back = RopeBackward(
        tokens=op.tokens, heads=scaled(op.heads, needs["q"]), kv_heads=scaled(op.kv_heads, needs["k"]),
        head_dim=op.head_dim, activations=op.activations,
    )  # fmt: skip
    given = here.emit("backward", back, here.dy)
    for taken, mine in zip(here.flowing, parts, strict=True):
        here.give(taken, [Value(given.node, tuple(mine))])


def _parts_in(elems: Num, sizes: list[Num]) -> int:
    """The number of further parts that make up an input: queries, or queries and keys."""
    return 2 if len(sizes) > 1 and not agree(elems, sizes[0]) else 1


@gradients.register(Join)
@gradients.register(KeysAndValues)
def _join(op: Op, here: ForwardNode) -> None:
    """One part of the gradient for each joined value."""
    pieces = []
    for value in here.dy:
        made = here.scope.made[value.node]
        sizes = made.out_parts
        pieces += [(Value(value.node, (part,)), sizes[part]) for part in value.parts] or [(value, made.out_elems)]
    here.deal(pieces)


@gradients.register
def _input(op: Input, here: ForwardNode) -> None:
    """The producer of the value receives its gradient."""


@gradients.register
def _loss(op: Loss, here: ForwardNode) -> None:
    """Log-softmax is saved in the format of the recipe's loss, together with the target ids."""
    need = here.need
    logits = here.keep_own("logits", op.rows * op.vocab, need, each=here.rules.logit_bytes)
    targets = here.keep_own("targets", op.rows, need, each=INT64_BYTES)
    total = here.keep_own("total", 1.0, need, each=np.minimum(here.rules.logit_bytes, FP32.bytes))
    back = LossBackward(rows=scaled(op.rows, need), vocab=op.vocab, activations=op.activations)
    given = here.emit("backward", back, [Value(here.name), logits, targets, total])
    here.deal([(given, op.rows * op.vocab)])
