"""One node of the forward pass as seen by its gradient rule: its inputs and the gradient of its result."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from graphsim.errors import GraphError
from graphsim.graph import Value
from graphsim.ops import IndexScores, Op
from graphsim.ops.adapter_weights import BuiltWeights
from graphsim.ops.formats import Format
from graphsim.passes.backward_rules import BackwardRules
from graphsim.passes.gradients.scope import OpInput, Scope, Storage, greater
from graphsim.symbolic.points import agree
from graphsim.symbolic.questions import may_be_nonzero
from graphsim.units import Num


@dataclass(slots=True)
class ForwardNode:
    """One node of the forward pass as seen by its gradient rule: its inputs and the gradient of its result."""

    name: str
    op: Op
    scope: Scope
    dy: list[Value]
    inputs: list[OpInput]

    @property
    def rules(self) -> BackwardRules:
        """The trainer's rules."""
        return self.scope.rules

    @property
    def flowing(self) -> list[OpInput]:
        """Inputs that are differentiable values, neither weights nor choices."""
        return [taken for taken in self.inputs if not (taken.op.constant or isinstance(taken.op, IndexScores))]

    @property
    def need(self) -> Num:
        """Whether any of its inputs requires a gradient."""
        need: Num = 0.0
        for taken in self.flowing:
            need = greater(need, taken.need)
        return need

    @property
    def trained(self) -> Num:
        """Whether its weights are trained, directly or as an adapter's copy."""
        share = self.op.trained
        for taken in self.inputs:
            if taken.op.constant and taken.value.node.endswith(".lora_saved"):
                share = greater(share, taken.need)
        return share

    @property
    def trained_biases(self) -> Num:
        """Whether an adapter trains its biases as well."""
        share: Num = 0.0
        for taken in self.inputs:
            if taken.op.constant and taken.value.node.endswith(".lora_biases"):
                share = greater(share, taken.need)
        return share

    def emit(self, part: str, op: Op, inputs: Iterable[Value]) -> Value:
        """Add a step named after this node."""
        op = replace(
            op, role=f"{self.op.role or self.name}.{part}", layer=self.op.layer, stage=self.op.stage,
            once=False,
            adapter=op.adapter or (self.op.adapter and (op.ends or not self.op.joins_base)),
        )  # fmt: skip
        return self.scope.emit(f"{self.name}.{part}", op, inputs)

    def keep_input(self, taken: OpInput, live: Num) -> list[Value]:
        """Save the storage of one input."""
        return self.scope.keep_value(taken.value, live)

    def keep_inputs(self, live: Num) -> list[Value]:
        """Save the storages of all inputs."""
        return [kept for taken in self.flowing for kept in self.keep_input(taken, live)]

    def keep_own(
        self,
        what: str,
        elems: Num,
        live: Num,
        form: Format | None = None,
        each: Num | None = None,
        takes_memory: bool = True,
    ) -> Value:
        """A by-product of this node; its result, where `what` is ""."""
        storage = Storage(self.name, what=what)
        return self.scope.keep(storage, elems, live, form or self.op.activations, each, takes_memory)

    @property
    def made_of(self) -> list[OpInput]:
        """Weights that an adapter computes from trained parameters in every forward pass, used in place by this
        node.
        """
        return [taken for taken in self.inputs if _is_made(taken)]

    def give(self, taken: OpInput, gradient: list[Value]) -> None:
        """Pass on the gradient of an input, if it requires one."""
        if may_be_nonzero(taken.need):
            self.scope.give(taken.value, gradient)

    def deal(self, pieces: list[tuple[Value, Num]]) -> None:
        """Distribute concatenated pieces of gradients to the inputs, in order.

        Raises GraphError if an input is not a whole number of pieces.
        """
        left = list(pieces)
        for taken in self.flowing:
            mine: list[Value] = []
            size: Any = 0.0
            while left and not _fits(size, taken.elems):
                value, elems = left.pop(0)
                mine.append(value)
                size = size + elems
            if not _fits(size, taken.elems):
                raise GraphError(
                    f"node '{self.name}' ({type(self.op).__name__}): its gradients do not come in the parts that its "
                    f"input '{taken.value.node}' takes; there is no gradient rule for such inputs"
                )
            if mine:
                self.give(taken, joined(mine))


def _is_made(taken: OpInput) -> bool:
    return isinstance(taken.op, BuiltWeights) and may_be_nonzero(taken.need)


def joined(values: list[Value]) -> list[Value]:
    """The same values, with the parts of one node merged."""
    out: list[Value] = []
    for value in values:
        if out and value.parts and out[-1].node == value.node and out[-1].parts:
            out[-1] = Value(value.node, (*out[-1].parts, *value.parts))
        else:
            out.append(value)
    return out


def _fits(size: Any, elems: Any) -> bool:
    """Whether pieces make up an input; pieces of a gradient that a scenario does not need are 0."""
    return agree(size, elems)
