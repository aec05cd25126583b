"""An inference's numbers without its graph: the passes record their formulas once for each structure.

What shapes the graph (model, device, prices, targets, strategy, degrees of parallelism but dp) is a structure; batch,
lengths, dp, ranks and adapters are variables. Evaluating a structure gives what the passes give, to rounding. A
structure whose passes ask for actual numbers is not recorded; it goes through the passes every time, and
`graphsim.compile.reasons` says which line asked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from functools import cache, cached_property
from typing import Any

import numpy as np

from graphsim.compile.activity import ActivityFormulas, activity_formulas
from graphsim.compile.symbols import CONTEXT, INPUT, OUTPUT, SHAPING, with_symbols
from graphsim.cost.users import UsersCost
from graphsim.deployment.deployment import Deployment
from graphsim.deployment.energy import Activities
from graphsim.deployment.inference import Inference
from graphsim.deployment.memory import Memory
from graphsim.deployment.scenarios import take
from graphsim.graph import walk
from graphsim.hardware import Hardware
from graphsim.symbolic.expr import Expr, NotRecordable, Tape
from graphsim.symbolic.growing_sum import GrowingSum
from graphsim.symbolic.memo import Memo
from graphsim.symbolic.program import Program
from graphsim.symbolic.substitute import names_of
from graphsim.units import Num

Inputs = Mapping[str, Any]

_BLOCK = 2**13
"""Different scenarios that are computed together."""


class Formulas:
    """The formulas of one structure, and the programs that evaluate them for the values of its variables.

    Values are floats, or arrays that broadcast against each other: one per scenario, or a grid with an axis for each.
    first_token, step: the time to the first token, and of one step of generation behind `context` tokens
    one_time: of the work that is done once before serving; level, growing: of a step what does not grow with the
        context, and the sums of what does
    """

    def __init__(self, inference: Inference, tape: Tape | None = None) -> None:
        self._tape = Tape() if tape is None else tape
        self._inference = with_symbols(inference, self._tape)
        context: Any = self._tape.variable(CONTEXT)
        step, prompt = self._inference.step_graph(context), self._inference.prefill_graph()
        self.first_token, self.step = self._inference.first_token_s(prompt), self._inference.step_s(context, step)
        self.level, growing = _by_context(self.step)
        self.one_time = self._inference.one_time_s() if any(op.once for _, op, _ in walk(prompt)) else 0.0
        self._fixed = Program([self.first_token, self.one_time, self.level])
        self.growing = [GrowingSum(part, CONTEXT) for part in growing.values()]
        self._graphs = [(prompt, step)]

    def times_s(self, inputs: Inputs) -> tuple[Num, Num, Num]:
        """Time to the first token, of all decode steps behind the first token, and of the one-time work.

        Lists of different scenarios are computed in pieces, so that arrays stay in a core's cache.
        """
        length = _listed(inputs)
        if length <= _BLOCK:
            return self._times_s(inputs)
        pieces = [self._times_s(_piece(inputs, slice(at, at + _BLOCK))) for at in range(0, length, _BLOCK)]
        return tuple([_joined(parts) for parts in zip(*pieces, strict=True)])  # type: ignore[return-value]

    def _times_s(self, inputs: Inputs) -> tuple[Num, Num, Num]:
        """What does not grow with the context is computed in one go, whichever step it belongs to."""
        ttft_s, one_time_s, level_s = self._fixed(inputs)
        first, count = inputs[INPUT], np.maximum(inputs[OUTPUT] - 1.0, 1.0)
        generation_s: Num = count * level_s
        for growing in self.growing:
            generation_s = growing(inputs, first, count) + generation_s
        return ttft_s, generation_s, one_time_s

    def memory(self, inputs: Inputs) -> Memory:
        """Memory per device at the end of the generation."""
        return Memory(**dict(zip(self._memory[0], self._memory[1](inputs), strict=True)))

    @cached_property
    def _memory(self) -> tuple[list[str], Program]:
        return list(self.memory_formulas), Program(list(self.memory_formulas.values()))

    @cached_property
    def memory_formulas(self) -> dict[str, Any]:
        """Of each field of `Memory`."""
        memory = self._inference.memory()
        return {field.name: getattr(memory, field.name) for field in fields(Memory)}

    def activities(self, inputs: Inputs) -> Activities | None:
        """What the steps ask of memory and matrix units; None where the device states no peak for a format."""
        if self._activity is None:
            return None
        mean = inputs[INPUT] + np.maximum(inputs[OUTPUT] - 2.0, 0.0) / 2.0
        return self._activity({**inputs, CONTEXT: mean})

    @cached_property
    def _activity(self) -> ActivityFormulas | None:
        return activity_formulas(self._inference, self._tape, *self._graphs.pop())


def _listed(inputs: Inputs) -> int:
    """How many different scenarios there are one after the other; 0 for one, and for a grid with several axes."""
    shapes = {value.shape for value in inputs.values() if isinstance(value, np.ndarray)}
    return shapes.pop()[0] if len(shapes) == 1 and len(next(iter(shapes))) == 1 else 0


def _piece(inputs: Inputs, some: slice) -> dict[str, Any]:
    return {name: value[some] if isinstance(value, np.ndarray) else value for name, value in inputs.items()}


def _joined(parts: Sequence[Num]) -> Num:
    """The results of all pieces; a number where none of them depends on what differs."""
    return np.concatenate(parts) if isinstance(parts[0], np.ndarray) else parts[0]


def _by_context(step: Any) -> tuple[Any, dict[frozenset[str], Any]]:
    """A step's time in parts: what is level in the context, and by the variables that it depends on, what grows."""
    level: Any = 0.0
    growing: dict[frozenset[str], Any] = {}
    for term in _terms(step):
        if isinstance(term, Expr) and CONTEXT in term.free:
            growing[term.free] = growing.get(term.free, 0.0) + term
        else:
            level = level + term
    return level, growing


def _terms(value: Any) -> list[Any]:
    if not isinstance(value, Expr) or value.linear is None:
        return [value]
    constant, terms = value.linear
    return [constant, *(value.tape.linear(0.0, {serial: coefficient}) for serial, coefficient in terms)]


def formulas_of(inference: Inference) -> Formulas | None:
    """The recorded formulas of an inference's structure; None where its passes need actual numbers.

    Raises GraphError for a user's own pass that yields a graph which is not valid: the graphs of a structure are looked
    at once, those of actual numbers every time.
    """
    found = _structures.get(structure_of(inference), lambda: _compile(inference)) if recordable(inference) else None
    if found is None:
        inference.check_passes()
    return found


_structures: Memo[Formulas | None] = Memo(most=256)


def _compile(inference: Inference) -> Formulas | None:
    single = inference if inference.scenarios is None else take(inference, 0)
    single.check_passes()
    try:
        return Formulas(inference)
    except NotRecordable:
        return None


def recordable(inference: Inference) -> bool:
    """Whether the numbers that shape a graph are single ones."""
    parallelism, lora = inference.deployment.parallelism, inference.deployment.lora
    shaping = [getattr(parallelism, name) for name in ("tp", "ep", "sp")]
    shaping += [getattr(lora, name) for name in SHAPING] if lora else []
    return not any(map(np.ndim, shaping)) and not _has_arrays(inference.hardware)


def _has_arrays(hardware: Hardware) -> bool:
    return any(isinstance(getattr(hardware, name), np.ndarray) for name in names_of(Hardware))


def structure_of(inference: Inference) -> list[Any]:
    """All that shapes an inference's graph and prices, its variables left out."""
    return [repr(inference.requests.media), *shape_of(inference.deployment)]


def shape_of(deployment: Deployment) -> list[Any]:
    """All that a deployment says of the shape of graphs and of their prices."""
    price = deployment.price
    parts: list[Any] = [
        deployment.device,
        *(price.rests_on() if isinstance(price, UsersCost) else [price]),
    ]
    for thing in (deployment, deployment.model, deployment.precision, deployment.parallelism, deployment.adapter):
        if thing is not None:
            adapter = thing is deployment.adapter
            shaping = _shaping(type(thing))  # type: ignore[arg-type]
            parts += [_shape(getattr(thing, name), kind, adapter and name not in SHAPING) for name, kind in shaping]
    for own in deployment.passes:
        kind: Any = type(own)
        parts += [kind, *[getattr(own, name) for name in names_of(kind)]]
    return parts


@cache
def _shaping(kind: type) -> tuple[tuple[str, Any], ...]:
    """Names and types of the fields that may shape a graph."""
    return tuple([(field.name, field.type) for field in fields(kind) if field.name not in _NOT_SHAPING])


_NOT_SHAPING = {
    "model",
    "hardware",
    "precision",
    "parallelism",
    "lora",
    "lora_config",
    "cost",
    "passes",
    "dp",
    "document",
}
"""Descriptions that are looked into, and the degree that only divides the batch."""


def _shape(value: Any, kind: Any, adapter: bool) -> Any:
    """What a field says of the shape of a graph: an adapter's numbers nothing, mappings of such the names alone."""
    if kind == "Num":
        return None if adapter else float(value)
    if isinstance(value, Mapping) and kind != "Mapping[str, Num]":
        return tuple(sorted(value.items()))
    return tuple(value) if isinstance(value, list | Mapping) else value
