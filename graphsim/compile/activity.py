"""What steps ask of memory and matrix units as formulas, of calls where an operation's work needs actual numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import networkx as nx

from graphsim.deployment.energy import Activities, Activity, activity_of, decode_activity, op_activity
from graphsim.deployment.inference import Inference
from graphsim.errors import GraphsimError, HardwareError
from graphsim.hardware import Hardware
from graphsim.ops import Op
from graphsim.symbolic.expr import Tape
from graphsim.symbolic.kernel import Opaque
from graphsim.symbolic.program import Program
from graphsim.symbolic.refusal import CONFUSED, reason
from graphsim.symbolic.substitute import filler, symbols_in
from graphsim.units import Num


class ActivityFormulas:
    """What the steps of a recorded inference ask of a device. Raises HardwareError where it has no peak for a format.

    prompt, step: graphs of its prompt step and of one step of generation, with symbols of the tape
    """

    def __init__(self, inference: Inference, tape: Tape, prompt: nx.DiGraph, step: nx.DiGraph) -> None:
        each = _Recorded(tape)
        first = activity_of(prompt, inference.hardware, inference.deployment.parallelism.pp, each)
        later = decode_activity(inference, step, each)
        self._program = Program([first.memory_s, first.compute_s, later.memory_s, later.compute_s])

    def __call__(self, inputs: dict[str, Any]) -> Activities:
        """Of the values of all variables, the context among them."""
        found = self._program(inputs)
        prefill, decode = (Activity(memory_s=found[i], compute_s=found[i + 1]) for i in (0, 2))
        return Activities(prefill=prefill, decode=decode)


def activity_formulas(
    inference: Inference, tape: Tape, prompt: nx.DiGraph, step: nx.DiGraph
) -> ActivityFormulas | None:
    """The formulas; None where the device states no peak for what it computes, so that its power is not known."""
    try:
        return ActivityFormulas(inference, tape, prompt, step)
    except HardwareError:
        return None


class _Recorded:
    """What an operation asks, as formulas of its symbols."""

    def __init__(self, tape: Tape) -> None:
        self._tape = tape

    def __call__(self, op: Op, hardware: Hardware) -> Activity:
        before = self._tape.refused
        try:
            return op_activity(op, hardware)
        except GraphsimError:
            raise
        except CONFUSED as error:
            symbols, why = symbols_in(op), reason(error)
            calls = (Opaque(_numbers(op, hardware, name), why) for name in ("memory_s", "compute_s"))
            parts: list[Any] = [self._tape.apply(call, *symbols) for call in calls]
            return Activity(memory_s=parts[0], compute_s=parts[1])
        finally:
            self._tape.refused = before


def _numbers(op: Op, hardware: Hardware, name: str) -> Callable[..., Num]:
    """A part of what an operation asks, as a function of the values of its symbols."""
    filled = filler(op)

    def of(*values: Num) -> Num:
        found: Num = getattr(op_activity(filled(iter(values)), hardware), name)
        return found

    return of
