"""Gradients of state-space and linear-attention layers."""

from __future__ import annotations

from graphsim.graph import Value
from graphsim.ops import CausalConv, Scan, VectorGradient
from graphsim.ops.gradients.scan import ConvBackward, ScanBackward
from graphsim.passes.gradients.forward_node import ForwardNode
from graphsim.passes.gradients.rules import gradients
from graphsim.passes.gradients.scope import scaled
from graphsim.symbolic.questions import may_be_nonzero


@gradients.register
def _scan(op: Scan, here: ForwardNode) -> None:
    """Inputs are saved, states recomputed; the gradients of the recurrence's own weights are summed over tokens."""
    need, trained = here.need, here.trained
    if not may_be_nonzero(need):
        return
    kept = here.keep_inputs(need)
    gives = tuple(scaled(taken.elems, need) for taken in here.flowing)
    back = ScanBackward(
        tokens=scaled(op.tokens, need), channels=op.channels, state=op.state, inputs=op.inputs, learned=op.learned,
        matrix=op.matrix, mechanism=op.mechanism, gives=gives, activations=op.activations,
    )  # fmt: skip
    given = here.emit("backward", back, [*here.dy, *kept])
    here.deal([(Value(given.node, (str(i),)), taken.elems) for i, taken in enumerate(here.flowing)])
    if may_be_nonzero(trained) and may_be_nonzero(op.learned):
        sums = VectorGradient(rows=scaled(1.0, trained), width=op.learned, activations=op.activations)
        here.emit("wgrad", sums, here.dy)


@gradients.register
def _convolution(op: CausalConv, here: ForwardNode) -> None:
    """The convolution with flipped filters; the filters' gradient needs its input."""
    need, trained = here.need, here.trained
    if may_be_nonzero(need):
        gives = tuple(scaled(taken.elems, need) for taken in here.flowing)
        back = ConvBackward(
            tokens=scaled(op.tokens, need), channels=op.channels, taps=op.taps, gives=gives,
            activations=op.activations,
        )  # fmt: skip
        given = here.emit("backward", back, here.dy)
        here.deal([(Value(given.node, (str(i),)), taken.elems) for i, taken in enumerate(here.flowing)])
    if may_be_nonzero(trained):
        sums = VectorGradient(
            rows=scaled(op.tokens, trained), width=op.channels, vectors=op.taps + float(op.bias), reads=2.0,
            activations=op.activations,
        )  # fmt: skip
        here.emit("wgrad", sums, [*here.dy, *here.keep_inputs(trained)])
