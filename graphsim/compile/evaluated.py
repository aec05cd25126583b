"""Times, memory and activities of scenarios, from the programs of a deployment's formulas."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from graphsim.compile.activity import ActivityFormulas
from graphsim.compile.symbols import CONTEXT, INPUT, OUTPUT
from graphsim.deployment.energy import Activities
from graphsim.deployment.memory import Memory
from graphsim.symbolic.growing_sum import GrowingSum
from graphsim.symbolic.guards import Guards
from graphsim.symbolic.program import Program
from graphsim.symbolic.substitute import names_of
from graphsim.units import Num

if TYPE_CHECKING:
    from graphsim.compile.causes import Cause, Causes

Inputs = Mapping[str, Any]

_BLOCK = 2**13
"""Number of distinct scenarios that are evaluated together."""


class Evaluated:
    """Formulas of a deployment, for the values of its variables.

    Values are floats, or arrays that broadcast against each other: one per scenario, or a grid with an axis for each.
    fixed: the time to the first token, that of the one-time work, and the part of a step that does not grow with the
        context
    growing: the sums of the parts of a step that do
    """

    fixed: Program
    growing: Sequence[GrowingSum]

    @property
    def memory_program(self) -> Program:
        """The program for the fields of `Memory`, in order."""
        raise NotImplementedError

    @property
    def guards(self) -> Guards:
        """All checks of the inputs, with the error messages of `simulate`."""
        raise NotImplementedError

    @property
    def noted(self) -> Guards:
        """The guards that passes added."""
        raise NotImplementedError

    @property
    def activity(self) -> ActivityFormulas | None:
        """The activity of memory and matrix units in the steps."""
        raise NotImplementedError

    @property
    def causes(self) -> Causes:
        """Formulas of the causes of the times."""
        raise NotImplementedError

    @property
    def causes_program(self) -> Program:
        """The program for the causes, in order."""
        raise NotImplementedError

    def times_s(self, inputs: Inputs) -> tuple[Num, Num, Num]:
        """Time to the first token, of all decode steps after the first token, and of the one-time work.

        Lists of different scenarios are computed in pieces, so that arrays stay in a core's cache.
        """
        length = _listed(inputs)
        if length <= _BLOCK:
            return self._times_s(inputs)
        pieces = [self._times_s(_piece(inputs, slice(at, at + _BLOCK))) for at in range(0, length, _BLOCK)]
        return tuple([_joined(parts) for parts in zip(*pieces, strict=True)])  # type: ignore[return-value]

    def _times_s(self, inputs: Inputs) -> tuple[Num, Num, Num]:
        """Parts that do not grow with the context are evaluated together for all steps."""
        ttft_s, one_time_s, level_s = self.fixed(inputs)
        first, asked = inputs[INPUT], inputs[OUTPUT]
        count = max(asked - 1.0, 1.0) if isinstance(asked, float) else np.maximum(asked - 1.0, 1.0)
        generation_s: Num = count * level_s
        for growing in self.growing:
            generation_s = growing(inputs, first, count) + generation_s
        return ttft_s, generation_s, one_time_s

    def memory(self, inputs: Inputs) -> Memory:
        """Memory per device at the end of the generation."""
        return Memory(**dict(zip(names_of(Memory), self.memory_program(inputs), strict=True)))

    def activities(self, inputs: Inputs) -> Activities | None:
        """The activity of memory and matrix units in the steps; None if the device states no peak for a format."""
        if self.activity is None:
            return None
        return self.activity(_at_mean(inputs))

    def causes_s(self, inputs: Inputs) -> dict[Cause, Num]:
        """The causes of the time to the first token, and of a decode step at the mean context, or at
        the `context` among the inputs. Raises NotRecordable if a schedule is not a formula of sums and maxima."""
        at = inputs if CONTEXT in inputs else _at_mean(inputs)
        return dict(zip(self.causes, self.causes_program(at), strict=True))


def _at_mean(inputs: Inputs) -> dict[str, Any]:
    """The values of all variables, the mean context of the generation among them."""
    return {**inputs, CONTEXT: inputs[INPUT] + np.maximum(inputs[OUTPUT] - 2.0, 0.0) / 2.0}


def _listed(inputs: Inputs) -> int:
    """The number of distinct scenarios in a list; 0 for a single one, and for a grid with several axes."""
    shapes = {value.shape for value in inputs.values() if isinstance(value, np.ndarray)}
    if not shapes:
        return 0
    return shapes.pop()[0] if len(shapes) == 1 and len(next(iter(shapes))) == 1 else 0


def _piece(inputs: Inputs, some: slice) -> dict[str, Any]:
    return {name: value[some] if isinstance(value, np.ndarray) else value for name, value in inputs.items()}


def _joined(parts: Sequence[Num]) -> Num:
    """The results of all pieces; a number if none of them depends on the values that differ."""
    return np.concatenate(parts) if isinstance(parts[0], np.ndarray) else parts[0]
