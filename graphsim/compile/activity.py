"""Memory and matrix-unit activity of steps as formulas, with calls where an operation's work needs actual numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import copy
from typing import Any

import networkx as nx

from graphsim.compile.prices import at_numbers
from graphsim.deployment.energy import Activities, Activity, activity_of, decode_activity, op_activity
from graphsim.deployment.inference import Inference
from graphsim.errors import GraphsimError, HardwareError
from graphsim.hardware import Hardware
from graphsim.ops import Op
from graphsim.symbolic.expr import Tape, applied
from graphsim.symbolic.kernel import Opaque
from graphsim.symbolic.program import Program
from graphsim.symbolic.refusal import CONFUSED, reason
from graphsim.units import Num


class ActivityFormulas:
    """The activity of the steps of a recorded inference on a device. Raises HardwareError if it has no peak for a
    format.

    prompt, step: graphs of its prompt step and of one decode step, with symbols of the tape
    asked: seconds of memory and of matrix units in the prompt step, then in one decode step
    """

    def __init__(self, inference: Inference, tape: Tape, prompt: nx.DiGraph, step: nx.DiGraph) -> None:
        each = _Recorded(tape)
        first = activity_of(prompt, inference.hardware, inference.deployment.parallelism.pp, each)
        later = decode_activity(inference, step, each)
        self.asked = [first.memory_s, first.compute_s, later.memory_s, later.compute_s]
        self._program = Program(self.asked)

    def bound(self, known: Mapping[str, Any]) -> ActivityFormulas:
        """The same formulas with known values for some variables."""
        other = copy(self)
        other._program = self._program.bound(known)
        return other

    def __call__(self, inputs: dict[str, Any]) -> Activities:
        """The activity at given values of all variables, including the context."""
        found = self._program(inputs)
        prefill, decode = (Activity(memory_s=found[i], compute_s=found[i + 1]) for i in (0, 2))
        return Activities(prefill=prefill, decode=decode)


def activity_formulas(
    inference: Inference, tape: Tape, prompt: nx.DiGraph, step: nx.DiGraph
) -> ActivityFormulas | None:
    """The formulas; None if the device states no peak for a format that is computed, so that its power is unknown."""
    try:
        return ActivityFormulas(inference, tape, prompt, step)
    except HardwareError:
        return None


class _Recorded:
    """An operation's activity, as formulas of its symbols."""

    def __init__(self, tape: Tape) -> None:
        self._tape = tape

    def __call__(self, op: Op, hardware: Hardware) -> Activity:
        before = self._tape.refused
        try:
            return op_activity(op, hardware)
        except GraphsimError:
            raise
        except CONFUSED as error:
            why = reason(error)
            parts: list[Any] = [
                applied(Opaque(function, why), *values)
                for function, values in (at_numbers(_part_of(name), op, hardware) for name in ("memory_s", "compute_s"))
            ]
            return Activity(memory_s=parts[0], compute_s=parts[1])
        finally:
            self._tape.refused = before


def _part_of(name: str) -> Callable[[Op, Hardware], Num]:
    """One part of an operation's activity."""

    def part(op: Op, hardware: Hardware) -> Num:
        found: Num = getattr(op_activity(op, hardware), name)
        return found

    return part
