"""Models without a list of layers: the stem is everything before the last GEMM, and the head is that GEMM."""

from __future__ import annotations

from typing import Any

from graphsim.errors import ConfigError
from graphsim.models.capture.blocks import Section
from graphsim.models.capture.raising.products import weight_of
from graphsim.models.capture.rows import Row, RowInput
from graphsim.models.capture.trace import Step, Trace

PREFIX = "layers.{}."
LAYER: list[dict[str, Any]] = [{"name": "nothing", "op": "join", "inputs": ["input"]}]
"""An empty layer, since a model file needs at least one."""


def has_layers(found: Trace) -> bool:
    """Whether a layer of any list was called."""
    return bool(found.prompt.calls)


def ends(found: Trace, step: Step) -> tuple[Section, Section]:
    """Stem and head of a step.

    Raises ConfigError if the step does not contain a linear layer.
    """
    parameters = frozenset(name for name, _ in found.model.named_parameters())
    for at, row in reversed(list(enumerate(step.rows))):
        value = _value(row, parameters) if row.kind == "linear" else None
        if value is not None:
            stem = Section(rows=step.rows[:at], left=value.source)
            head = Section(rows=step.rows[at:], entry=value.source, entry_shape=value.shape, left=step.left)
            return stem, head
    raise ConfigError(f"{type(found.model).__name__} has neither a list of layers nor a linear layer at its end")


def _value(row: Row, parameters: frozenset[str]) -> RowInput | None:
    """The activation that a GEMM multiplies by a weight; None if the row has no weight."""
    if not any(weight_of(taken) in parameters for taken in row.inputs):
        return None
    return next((taken for taken in row.inputs if weight_of(taken) not in parameters), None)
