"""The entries of a block: a name, inputs, and the operations that they add.

Dimensions of weights are numbers once the model's fields are known. Sizes of values may also refer to a step's
quantities (STEP_NAMES).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from graphsim.errors import GraphError
from graphsim.files.arithmetic import Expression
from graphsim.graph import Value
from graphsim.models.layers.base import NEARLY_NONE, Scope
from graphsim.ops import Join, SomeRows
from graphsim.symbolic.questions import is_known
from graphsim.units import Num

INPUT, SOURCE = "input", "source"
"""The input of a block, and the rows of an encoder as a second input."""

STEP_NAMES = (
    "tokens", "sequences", "kv_tokens", "pairs", "logit_rows",
    "new_tokens", "context_tokens", "source_tokens", "encoded_rows",
)  # fmt: skip
"""Quantities of a step, for use in arithmetic."""


def step_values(scope: Scope) -> dict[str, Num]:
    """The values of STEP_NAMES; those per sequence are means over the step."""
    phase = scope.phase
    kv_tokens = sum((s.kv_tokens() for s in phase.segments), start=0.0)
    sequences = np.maximum(phase.sequences, NEARLY_NONE)
    return {
        "tokens": phase.tokens,
        "sequences": phase.sequences,
        "kv_tokens": kv_tokens,
        "pairs": sum((s.pairs(causal=phase.causal) for s in phase.segments), start=0.0),
        "logit_rows": phase.logit_rows,
        "new_tokens": phase.tokens / sequences,
        "context_tokens": kv_tokens / sequences,
        "source_tokens": sum((s.source_rows for s in phase.segments), start=0.0) / sequences,
        "encoded_rows": sum((s.encoded_rows for s in phase.segments), start=0.0),
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One entry of a custom block. `inputs` name earlier entries, or `input`, or a part such as `qkv.q`.

    idle: its weights are in memory, without any rows
    """

    name: str
    inputs: tuple[Value, ...] = ()
    idle: bool = False

    @property
    def parts(self) -> tuple[str, ...]:
        """Named parts of its result that later nodes may take."""
        return ()

    @abstractmethod
    def build(self, scope: Scope, inputs: Sequence[Value], step: Mapping[str, Num]) -> str:
        """Add the node's operations and return the name of the one that holds its result."""

    def size(self, dim: str, expression: Expression, step: Mapping[str, Num]) -> Num:
        """A size in this step; 0 for an idle node. Raises GraphError if it is not a valid size."""
        if self.idle:
            return 0.0
        value = expression.evaluate(step)
        if not is_known(value) and expression.is_size:
            return value
        if not np.all(np.isfinite(value) & (np.asarray(value) >= 0)):
            raise GraphError(f"node '{self.name}': {dim} = {expression} is negative or not finite for this step")
        return value

    def brought(self, scope: Scope, inputs: Sequence[Value]) -> Num:
        """Total elements of the inputs, each value counted once."""
        if self.idle:
            return 0.0
        return sum((scope.elems_of(value) for value in dict.fromkeys(inputs)), start=0.0)

    def together(self, scope: Scope, inputs: Sequence[Value]) -> list[Value]:
        """The inputs as one value: several are concatenated. None for a node without inputs."""
        if len(inputs) < 2:
            return list(inputs)
        return [Value(scope.add(f"{self.name}.join", Join(elems=self.brought(scope, inputs)), inputs))]

    def whole(self, scope: Scope, value: Value) -> str:
        """The node of a value; a part of a result gets a separate node."""
        if not value.parts:
            return value.node
        return scope.add(f"{self.name}.part", SomeRows(elems=scope.elems_of(value)), [value])
