"""Gradients of residuals of several streams or sums, of towers' operations, and of what blocks take from outside."""

from __future__ import annotations

from graphsim.errors import GraphError
from graphsim.graph import Value
from graphsim.ops import (
    Conv2d,
    DepthwiseConv,
    EncoderOutput,
    Handed,
    Op,
    OutsideValue,
    Patches,
    PlaceRows,
    PoolWindows,
    TakeRows,
    VectorGradient,
)
from graphsim.ops.depth import DepthOp
from graphsim.ops.gradients.doubled import AccumulatedGradient, DoubledBackward, KernelGradient
from graphsim.ops.streams import AddToStreams, MixStreams, SplitStreams
from graphsim.passes.gradients.forward_node import ForwardNode
from graphsim.passes.gradients.rules import gradients
from graphsim.passes.gradients.scope import scaled
from graphsim.symbolic.questions import may_be_nonzero


@gradients.register(MixStreams)
@gradients.register(DepthOp)
@gradients.register(PoolWindows)
@gradients.register(PlaceRows)
@gradients.register(TakeRows)
def _doubled(op: Op, here: ForwardNode) -> None:
    """Two gradients per GEMM and elementwise step, including those of its own weights."""
    if may_be_nonzero(here.need):
        linear = isinstance(op, AddToStreams | PlaceRows | TakeRows)
        _alike(here, 2.0, [] if linear else here.keep_inputs(here.need))
    if may_be_nonzero(here.trained) and may_be_nonzero(op.parameters):
        sums = VectorGradient(rows=scaled(1.0, here.trained), width=op.parameters, activations=op.activations)
        here.emit("wgrad", sums, [*here.dy, *here.keep_inputs(here.trained)])


def _alike(here: ForwardNode, times: float, kept: list[Value]) -> None:
    """Gradients of all inputs, whose work is `times` that of the operation."""
    op, need = here.op, here.need
    work = op.work() * need
    back = DoubledBackward(
        flops=work.flops, vector_flops=work.vector_flops, moved_bytes=work.memory_bytes, times=times,
        gives=tuple(scaled(taken.elems, need) for taken in here.flowing), launches=times * op.launches,
        activations=op.activations,
    )  # fmt: skip
    given = here.emit("backward", back, [*here.dy, *kept])
    for i, taken in enumerate(here.flowing):
        here.give(taken, [Value(given.node, (str(i),))])


@gradients.register(Conv2d)
@gradients.register(DepthwiseConv)
def _convolution(op: Op, here: ForwardNode) -> None:
    """The gradient as for any GEMM: one for its input, one for its kernels."""
    if may_be_nonzero(here.need):
        _alike(here, 1.0, [])
    trained = here.trained
    if may_be_nonzero(trained):
        work = op.work() * trained
        gradient = KernelGradient(
            flops=work.flops, vector_flops=work.vector_flops, moved_bytes=work.memory_bytes,
            gives=(scaled(op.parameters, trained),), activations=op.activations,
        )  # fmt: skip
        here.emit("wgrad", gradient, [*here.dy, *here.keep_inputs(trained)])


@gradients.register
def _split(op: SplitStreams, here: ForwardNode) -> None:
    """The streams' gradients are concatenated like the streams."""
    for taken in here.flowing:
        here.give(taken, here.dy)


@gradients.register
def _patches(op: Patches, here: ForwardNode) -> None:
    """Pixels and audio samples have no gradient."""


@gradients.register
def _encoded(op: EncoderOutput, here: ForwardNode) -> None:
    """Every turn adds to the gradient of the encoder's result."""
    total = AccumulatedGradient(elems=scaled(op.elems, here.scope.needs[here.name]), activations=op.activations)
    here.emit("accumulated", total, here.dy)


@gradients.register(Handed)
@gradients.register(OutsideValue)
def _outside(op: Op, here: ForwardNode) -> None:
    raise GraphError(
        f"node '{here.name}' hands a value from one block to another; there is no gradient rule for values that later "
        "blocks take from earlier ones, so training of this model cannot be simulated"
    )
