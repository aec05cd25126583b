"""An inference's numbers without its graph: the passes record their formulas once for each structure.

What shapes the graph (model, device, prices, targets, strategy, degrees of parallelism but dp) is a structure; batch,
lengths, dp, ranks and adapters are variables. Evaluating a structure gives what the passes give, to rounding. A
structure whose passes ask for actual numbers is not recorded; it goes through the passes every time, and
`graphsim.compile.reasons` says which line asked.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from functools import cache, cached_property
from typing import Any

import numpy as np

from graphsim.compile.activity import ActivityFormulas, activity_formulas
from graphsim.compile.calls import Remembering
from graphsim.compile.symbols import CONTEXT, INPUT, OUTPUT, SHAPING, with_symbols
from graphsim.cost.users import UsersCost
from graphsim.deployment.deployment import Deployment
from graphsim.deployment.energy import Activities
from graphsim.deployment.generation import sum_steps, sum_steps_many
from graphsim.deployment.inference import Inference
from graphsim.deployment.memory import Memory
from graphsim.deployment.scenarios import take
from graphsim.graph import walk
from graphsim.hardware import Hardware
from graphsim.symbolic.duration import Duration
from graphsim.symbolic.expr import Expr, NotRecordable, Tape
from graphsim.symbolic.memo import Memo
from graphsim.symbolic.program import Program, needed
from graphsim.symbolic.substitute import names_of
from graphsim.units import Num

Inputs = Mapping[str, Any]


class Formulas:
    """The formulas of one structure, and the programs that evaluate them for the values of its variables.

    Values are floats, or arrays that broadcast against each other: one per scenario, or a grid with an axis for each.
    """

    def __init__(self, inference: Inference, tape: Tape | None = None) -> None:
        self._tape = Tape() if tape is None else tape
        self._inference = with_symbols(inference, self._tape)
        context: Any = self._tape.variable(CONTEXT)
        step, prompt = self._inference.step_graph(context), self._inference.prefill_graph()
        level, growing = _by_context(self._inference.step_s(context, step))
        one_time_s = self._inference.one_time_s() if any(op.once for _, op, _ in walk(prompt)) else 0.0
        self._fixed = Program([self._inference.first_token_s(prompt), one_time_s, level])
        self._growing = [(sorted(names - {CONTEXT}), Program([part]), _jumps(part)) for names, part in growing.items()]
        self._graphs = [(prompt, step)]

    def times_s(self, inputs: Inputs, tolerance: float) -> tuple[Num, Num, Num]:
        """Time to the first token, of all decode steps behind the first token, and of the one-time work.

        What does not grow with the context is computed in one go, whichever step it belongs to.
        """
        ttft_s, one_time_s, level_s = self._fixed(inputs)
        first, count = inputs[INPUT], np.maximum(inputs[OUTPUT] - 1.0, 1.0)
        generation_s: Num = count * level_s
        for names, program, jumps in self._growing:
            chosen = {name: inputs[name] for name in names}
            part = _each(program, chosen, first, count) if jumps else _sum(program, chosen, first, count, tolerance)
            generation_s = part + generation_s
        return ttft_s, generation_s, one_time_s

    def memory(self, inputs: Inputs) -> Memory:
        """Memory per device at the end of the generation."""
        return Memory(**dict(zip(self._memory[0], self._memory[1](inputs), strict=True)))

    @cached_property
    def _memory(self) -> tuple[list[str], Program]:
        memory = self._inference.memory()
        names = [field.name for field in fields(Memory)]
        return names, Program([getattr(memory, name) for name in names])

    def activities(self, inputs: Inputs) -> Activities | None:
        """What the steps ask of memory and matrix units; None where the device states no peak for a format."""
        if self._activity is None:
            return None
        mean = inputs[INPUT] + np.maximum(inputs[OUTPUT] - 2.0, 0.0) / 2.0
        return self._activity({**inputs, CONTEXT: mean})

    @cached_property
    def _activity(self) -> ActivityFormulas | None:
        return activity_formulas(self._inference, self._tape, *self._graphs.pop())


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


def _jumps(part: Any) -> bool:
    """Whether a formula calls a price that may jump, so that no few probes tell what lies between them."""
    functions = [node.function.function for node in needed([part]) if isinstance(node.function, Duration)]
    return any(isinstance(function, Remembering) and function.jumps for function in functions)


def _each(program: Program, inputs: dict[str, Any], first: Num, count: Num) -> Num:
    """The sum over every step of every scenario, one scenario at a time."""
    starts, counts, *values = np.broadcast_arrays(first, count, *inputs.values())
    sums = [
        _sum(program, dict(zip(inputs, map(float, row), strict=True)), start, steps, 0.0)
        for start, steps, *row in zip(*[array.ravel() for array in (starts, counts, *values)], strict=True)
    ]
    return np.array(sums).reshape(starts.shape)[()]


def _sum(program: Program, inputs: dict[str, Any], first: Num, count: Num, tolerance: float) -> Num:
    arrays = np.broadcast(first, count, *inputs.values())
    if not arrays.ndim:
        return sum_steps(
            lambda contexts, _: program(inputs | {CONTEXT: contexts}, along=True)[0], float(first), float(count)
        )
    flat = {name: np.broadcast_to(value, arrays.shape).ravel() for name, value in inputs.items()}

    def step(contexts: Any, rows: Any) -> Num:
        chosen = flat if rows is None else {name: value[rows] for name, value in flat.items()}
        found: Num = program(chosen | {CONTEXT: contexts})[0]
        return found

    start, many = (np.broadcast_to(value, arrays.shape).ravel() for value in (first, count))
    return sum_steps_many(step, start, many, tolerance).reshape(arrays.shape)


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
