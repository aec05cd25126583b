"""The gradient rule of an operation: the steps that yield the gradients of its inputs and weights."""

from __future__ import annotations

from functools import singledispatch

from graphsim.errors import GraphError
from graphsim.ops import Op
from graphsim.passes.gradients.forward_node import ForwardNode


@singledispatch
def gradients(op: Op, here: ForwardNode) -> None:
    """Add the steps that yield the gradients of an operation's inputs and weights, and pass these on.

    Raises GraphError for a kind of operation that has no rule.
    """
    raise GraphError(
        f"node '{here.name}' is of kind {type(op).__name__}, for which there is no gradient rule; "
        "training of this model cannot be simulated"
    )
