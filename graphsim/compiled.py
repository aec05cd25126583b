"""A run's numbers without its graph: the passes record their formulas once for each structure.

What shapes the graph (model, device, prices, targets, strategy, degrees of parallelism but dp) is a structure; batch,
lengths, dp, ranks and adapters are variables. Evaluating a structure gives what the passes give, to rounding. A
structure whose passes ask for actual numbers is not recorded; it goes through the passes every time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from functools import cache, cached_property, partial
from typing import Any

import numpy as np

from graphsim.cost.base import Cost, CostModel
from graphsim.cost.calibrated import Prices
from graphsim.hardware import Hardware
from graphsim.integrate import sum_steps, sum_steps_many
from graphsim.memory import Memory
from graphsim.ops import Op
from graphsim.remember import Remembered
from graphsim.run import Requests, Run
from graphsim.symbolic.distinct import at_distinct
from graphsim.symbolic.duration import Duration
from graphsim.symbolic.expr import Expr, NotRecordable, Tape
from graphsim.symbolic.program import Program
from graphsim.symbolic.substitute import filler, names_of, numeric_fields, symbols_in, with_fields
from graphsim.units import Num

CONTEXT = "context"
INPUT, OUTPUT = "input_tokens", "output_tokens"
Inputs = Mapping[str, Any]


class Compiled:
    """The formulas of one structure, and the programs that evaluate them for the values of its variables.

    Values are floats, or arrays that broadcast against each other: one per scenario, or a grid with an axis for each.
    """

    def __init__(self, run: Run) -> None:
        self._tape = Tape()
        self._run = recording(run, self._tape)
        context: Any = self._tape.variable(CONTEXT)
        level, growing = _by_context(self._run.step_s(context))
        self._fixed = Program([self._run.ttft_s(), self._run.one_time_s(), level])
        self._growing = [(sorted(names - {CONTEXT}), Program([part])) for names, part in growing.items()]

    def times_s(self, inputs: Inputs, tolerance: float) -> tuple[Num, Num, Num]:
        """Time of the prompt step, of all decode steps behind the first token, and of the one-time work.

        What does not grow with the context is computed in one go, whichever step it belongs to.
        """
        ttft_s, one_time_s, level_s = self._fixed(inputs)
        first, count = inputs[INPUT], np.maximum(inputs[OUTPUT] - 1.0, 1.0)
        generation_s: Num = count * level_s
        for names, program in self._growing:
            generation_s = _sum(program, {name: inputs[name] for name in names}, first, count, tolerance) + generation_s
        return ttft_s, generation_s, one_time_s

    def memory(self, inputs: Inputs) -> Memory:
        """Memory per device at the end of the generation."""
        return Memory(**dict(zip(self._memory[0], self._memory[1](inputs), strict=True)))

    @cached_property
    def _memory(self) -> tuple[list[str], Program]:
        memory = self._run.memory()
        names = [field.name for field in fields(Memory)]
        return names, Program([getattr(memory, name) for name in names])


def _by_context(step: Any) -> tuple[Any, dict[frozenset[str], Any]]:
    """A step's time in parts: what is level in the context, and by the variables that it hangs on, what grows."""
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


def _sum(program: Program, inputs: dict[str, Any], first: Num, count: Num, tolerance: float) -> Num:
    arrays = np.broadcast(first, count, *inputs.values())
    if not arrays.ndim:
        return sum_steps(lambda contexts, _: program(inputs | {CONTEXT: contexts})[0], float(first), float(count))
    flat = {name: np.broadcast_to(value, arrays.shape).ravel() for name, value in inputs.items()}

    def step(contexts: Any, rows: Any) -> Num:
        chosen = flat if rows is None else {name: value[rows] for name, value in flat.items()}
        found: Num = program(chosen | {CONTEXT: contexts})[0]
        return found

    start, many = (np.broadcast_to(value, arrays.shape).ravel() for value in (first, count))
    return sum_steps_many(step, start, many, tolerance).reshape(arrays.shape)


def compiled(run: Run) -> Compiled | None:
    """The recorded formulas of a run's structure; None where its passes need actual numbers."""
    return _structures.get(_structure(run), lambda: _compile(run)) if recordable(run) else None


_structures: Remembered[Compiled | None] = Remembered(most=256)


def _compile(run: Run) -> Compiled | None:
    try:
        return Compiled(run)
    except NotRecordable:
        return None


def recordable(run: Run) -> bool:
    """Whether the numbers that shape a graph are single ones."""
    parallelism = run.deployment.parallelism
    return not any(np.ndim(getattr(parallelism, name)) for name in ("tp", "ep", "sp")) and not _has_arrays(run.hardware)


def _has_arrays(hardware: Hardware) -> bool:
    return any(isinstance(getattr(hardware, name), np.ndarray) for name in names_of(Hardware))


def inputs_of(run: Run) -> dict[str, Any]:
    """The values of a run's variables, by name."""
    requests, deployment = run.requests, run.deployment
    inputs = {name: getattr(requests, name) for name in ("batch", INPUT, OUTPUT)}
    inputs["dp"] = deployment.parallelism.dp
    return inputs | {name: value for name, value, _ in _adapter(run)}


def _adapter(run: Run) -> list[tuple[str, Any, tuple[str, str]]]:
    """The numbers of the adapter: variable, value, and where it stands (field, key of a mapping)."""
    lora = run.deployment.lora
    found: list[tuple[str, Any, tuple[str, str]]] = []
    for name, value in (numeric_fields(lora) if lora else {}).items():
        if isinstance(value, Mapping):
            found += [(f"{name}.{key}", entry, (name, key)) for key, entry in value.items()]
        else:
            found.append((name, value, (name, "")))
    return found


def _structure(run: Run) -> list[Any]:
    """All that shapes a run's graph and prices, its variables left out."""
    deployment = run.deployment
    parts: list[Any] = [run.hardware, run.price]
    for thing in (deployment, deployment.model, deployment.precision, deployment.parallelism, deployment.lora):
        if thing is not None:
            adapter = thing is deployment.lora
            shaping = _shaping(type(thing))  # type: ignore[arg-type]
            parts += [_shape(getattr(thing, name), kind, adapter) for name, kind in shaping]
    return parts


@cache
def _shaping(kind: type) -> tuple[tuple[str, Any], ...]:
    """Names and types of the fields that may shape a graph."""
    return tuple([(field.name, field.type) for field in fields(kind) if field.name not in _NOT_SHAPING])


_NOT_SHAPING = {"model", "precision", "parallelism", "lora", "lora_config", "dp"}
"""Descriptions that are looked into, and the degree that only divides the batch."""


def _shape(value: Any, kind: Any, adapter: bool) -> Any:
    """What a field says of the shape of a graph: an adapter's numbers nothing, mappings of such the names alone."""
    if kind == "Num":
        return None if adapter else float(value)
    return tuple(value) if isinstance(value, list) or kind == "Mapping[str, Num]" else value


def recording(run: Run, tape: Tape) -> Run:
    """The run with symbols for its numbers, whose prices are recorded."""
    deployment = run.deployment
    lora = deployment.lora
    if lora is not None:
        changes: dict[str, Any] = {}
        for name, _, (field, key) in _adapter(run):
            if key:
                changes.setdefault(field, {})[key] = tape.variable(name)
            else:
                changes[field] = tape.variable(name)
        lora = with_fields(lora, changes)
    parallelism = with_fields(deployment.parallelism, {"dp": tape.variable("dp")})
    requests = with_fields(run.requests, {f.name: tape.variable(f.name) for f in fields(Requests)})
    return replace(
        run,
        deployment=replace(deployment, parallelism=parallelism, lora=lora),
        requests=requests,
        price=_recorded(run.price, tape),
    )


class _Recorded(Cost):
    """A price of which only the latency is asked."""

    @property
    def bound(self) -> str:
        """Not known before the numbers are."""
        return ""


def _recorded(price: CostModel, tape: Tape) -> CostModel:
    """Prices that are formulas of the operation's symbols, or a call where the cost model needs its numbers."""

    calls: dict[Any, Any] = {}
    together = partial(_together, price) if isinstance(price, Prices) else None

    def recorded(op: Op, hardware: Hardware) -> Cost:
        symbols = symbols_in(op)
        if not symbols:
            return price(op, hardware)
        latency: Any
        try:
            latency = price(op, hardware).latency_s
        except NotRecordable:
            sizes = price.sizes(op) if isinstance(price, Prices) else ()
            key = tuple([size.serial if isinstance(size, Expr) else ("", size) for size in sizes]) or len(calls)
            if key not in calls:
                calls[key] = tape.apply(Duration(_Latency(price, op, hardware), together), *symbols)
            latency = calls[key]
        return _Recorded(busy_s=latency)

    return recorded


_REMEMBERED, _FEW = 4096, 16
"""Sizes of an operation whose single prices are kept, as engines' steps come back to the same token counts; and sizes
from which on it is worth a program of its own."""


class _Latency:
    """The latency of one operation as a function of the values of its symbols."""

    def __init__(self, price: CostModel, op: Op, hardware: Hardware) -> None:
        self.price, self.hardware, self.op = price, hardware, filler(op)
        self.known: dict[tuple[Any, ...], Num] = {}
        self._symbols = len(symbols_in(op))

    @cached_property
    def _single(self) -> Program | None:
        return _single(self.price, self.op, self._symbols) if isinstance(self.price, Prices) else None

    @property
    def single(self) -> Program | None:
        """The program for single values, which costs as much as many prices to make: none before it may pay."""
        return self._single if len(self.known) >= _FEW else None

    def __call__(self, *values: Any) -> Num:
        """Seconds; arrays are priced at their distinct values."""
        if any(isinstance(value, np.ndarray) for value in values):
            latency: Num = at_distinct(self._priced, values)
            return latency
        if values not in self.known:
            self.remember(values, self._priced(*values))
        return self.known[values]

    def remember(self, values: tuple[Any, ...], latency_s: Num) -> None:
        """Keep a price for single values, and make room now and then."""
        if len(self.known) >= _REMEMBERED:
            self.known.clear()
        self.known[values] = latency_s

    def _priced(self, *values: Any) -> Num:
        if self.single is not None and not any(isinstance(value, np.ndarray) for value in values):
            return self.single(dict(zip(_NAMES, values, strict=False)))[0]  # type: ignore[no-any-return]
        return self.price(self.op(iter(values)), self.hardware).latency_s


_NAMES = [str(i) for i in range(64)]


def _single(price: Prices, op: Callable[[Any], Op], symbols: int) -> Program | None:
    tape = Tape(lookups=True)
    try:
        return Program([price.formula_s(op(tape.variable(name) for name in _NAMES[:symbols]))])
    except NotRecordable:
        return None


def _together(price: Prices, asked: list[tuple[_Latency, tuple[Any, ...]]]) -> list[Num]:
    """Latencies at single values: those not known yet are priced in one go."""
    for latency, values in asked:
        if values not in latency.known and latency.single is not None:
            latency(*values)
    new = [(latency, values) for latency, values in asked if values not in latency.known]
    for (latency, values), seconds in zip(
        new, price.latencies_s([latency.op(iter(values)) for latency, values in new]), strict=True
    ):
        latency.remember(values, seconds)
    return [latency.known[values] for latency, values in asked]
