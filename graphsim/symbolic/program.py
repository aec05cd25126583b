"""Recorded formulas as straight-line programs: a list of steps over slots, for single numbers and for arrays."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from graphsim.symbolic.content import in_order
from graphsim.symbolic.expr import Expr
from graphsim.symbolic.operations import exact_of_number, of_number
from graphsim.symbolic.python import ProgramStep, lines_of, printed, printed_in_stages
from graphsim.symbolic.sums import Grouped, Weighted, with_known_terms

_PRINT_AFTER = 32
"""Number of runs with single numbers after which printing the program pays."""

ArrayStep = tuple[int, Callable[..., Any], tuple[int, ...], tuple[int, ...]]
"""A step, and the slots that are no longer needed after it."""


class Program:
    """Evaluates some formulas of a tape together; common parts are computed once.

    Inputs may be floats, or arrays that broadcast against each other: a formula is computed in the shape of the
    variables that it depends on, so a grid given as one axis per variable costs little more than its axes.
    """

    def __init__(self, outputs: Sequence[Any], given: Mapping[str, Expr] | None = None) -> None:
        """given: formulas whose values are inputs like variables, by name; their dependencies are not computed."""
        self._slots: dict[int, int] = {}
        self._start: list[Any] = []
        self._steps: list[ProgramStep] = []
        self._array_steps: list[ProgramStep] = []
        self._runs = 0
        self._source: Callable[..., list[Any]] | None = None
        self._of_arrays: dict[frozenset[int], list[ArrayStep]] = {}
        inputs: dict[str, int] = {}
        for name, node in (given or {}).items():
            inputs[name] = self._slot(node)
        for node in needed(outputs, given=frozenset(self._slots)):
            if node.name:
                inputs[node.name] = self._slot(node)
            else:
                self._emit(node)
        self._outputs = [self._slot(output) for output in outputs]
        self.inputs, self._input_slots = tuple(inputs), list(inputs.values())

    def __call__(self, inputs: Mapping[str, Any]) -> list[Any]:
        """The outputs' values. Raises KeyError for a variable that is not given."""
        return self.at(*[inputs[name] for name in self.inputs])

    def at(self, *values: Any) -> list[Any]:
        """The same with the values in the order of `inputs`."""
        for value in values:
            if type(value) is not float and isinstance(value, np.ndarray):
                return self._run_arrays(values)
        if self._source is not None:
            return self._source(*values)
        self._runs += 1
        if self._runs > _PRINT_AFTER:
            self._source = printed(self._steps, self._input_slots, self._start, self._outputs)
        return self._run_numbers(values)

    @property
    def lines(self) -> list[str]:
        """The generated source code of the program, for inspection."""
        return lines_of(self._steps, self._start)

    def in_stages(self, often: int) -> Callable[..., Callable[..., float]]:
        """The only output for single numbers: a function of the rarely changing inputs that returns a function of the
        others.

        often: number of leading inputs that change often
        """
        slots = self._input_slots
        return printed_in_stages(self._steps, slots[often:], slots[:often], self._start, self._outputs[0])

    def bound(self, known: Mapping[str, float]) -> Program:
        """The same program with known inputs: parts that depend only on these are computed once, here."""
        other = object.__new__(Program)
        other._slots, other._runs, other._source, other._of_arrays = self._slots, 0, None, {}
        other._outputs, other._start = self._outputs, self._start.copy()
        given = dict(zip(self.inputs, self._input_slots, strict=True))
        told = {given.pop(name): known[name] for name in known.keys() & given.keys()}
        for slot, value in told.items():
            other._start[slot] = value
        reached = set(told)
        other.inputs, other._input_slots = tuple(given), list(given.values())
        other._steps, other._array_steps = [], []
        for step, array_step in zip(self._steps, self._array_steps, strict=True):
            if reached.isdisjoint(step[2]):
                other._steps.append(step)
                other._array_steps.append(array_step)
                continue
            left = with_known(step, other._start)
            if left is None:
                slot, function, operands = step
                other._start[slot] = of_number(function)(*[other._start[i] for i in operands])
                reached.add(slot)
            else:
                other._steps.append(left)
                sums = array_step[1] is not step[1]
                other._array_steps.append((with_known(array_step, other._start) or left) if sums else left)
        return other

    def _run_numbers(self, given: Sequence[Any]) -> list[Any]:
        values = self._filled(given)
        for slot, function, operands in self._steps:
            values[slot] = of_number(function)(*[values[i] for i in operands])
        return [values[slot] for slot in self._outputs]

    def _run_arrays(self, given: Sequence[Any]) -> list[Any]:
        varying = frozenset([i for i, value in enumerate(given) if isinstance(value, np.ndarray)])
        steps = self._of_arrays.get(varying)
        if steps is None:
            steps = self._of_arrays[varying] = self._array_version({self._input_slots[i] for i in varying})
        values = self._filled(given)
        for slot, function, operands, dead in steps:
            if len(operands) == 2:
                values[slot] = function(values[operands[0]], values[operands[1]])
            else:
                values[slot] = function(*[values[i] for i in operands])
            for i in dead:
                values[i] = None
        return [values[slot] for slot in self._outputs]

    def _filled(self, given: Sequence[Any]) -> list[Any]:
        values = self._start.copy()
        for slot, value in zip(self._input_slots, given, strict=True):
            values[slot] = value
        return values

    def _array_version(self, varying: set[int]) -> list[ArrayStep]:
        """The steps for inputs that include arrays.

        Parts that depend on none of them are computed as numbers if that rounds the same; arrays are released early, so
        that their memory is reused while in the cache.
        """
        last: dict[int, int] = {}
        chosen: list[ProgramStep] = []
        for at, (slot, function, operands) in enumerate(self._array_steps):
            varies = not varying.isdisjoint(operands)
            if varies:
                varying.add(slot)
            chosen.append((slot, function if varies else exact_of_number(function), operands))
            last.update(dict.fromkeys((slot, *operands), at))
        dead: dict[int, list[int]] = {}
        for slot, at in last.items():
            if slot in varying and slot not in self._outputs:
                dead.setdefault(at, []).append(slot)
        return [(*step, tuple(dead.get(at, ()))) for at, step in enumerate(chosen)]

    def _slot(self, operand: Any) -> int:
        if type(operand) is not Expr:
            self._start.append(operand)
            return len(self._start) - 1
        slot = self._slots.get(operand.serial)
        if slot is None:
            slot = self._slots[operand.serial] = len(self._start)
            self._start.append(None)
        return slot

    def _emit(self, node: Expr) -> None:
        if node.linear is None:
            function: Any = node.function
            inputs = tuple(map(self._slot, node.operands))
            step = self._slot(node), function, inputs
            self._steps.append(step)
            self._array_steps.append(step)
            return
        constant, terms = node.linear
        order = in_order(node) if node.tape.by_content else range(len(terms))
        added, weights = [node.operands[at] for at in order], [terms[at][1] for at in order]
        operands, slot = tuple(map(self._slot, added)), self._slot(node)
        self._steps.append((slot, Weighted(constant, weights), operands))
        self._array_steps.append((slot, Grouped(constant, weights, _alike(added)), operands))


def with_known(step: ProgramStep, values: Sequence[Any]) -> ProgramStep | None:
    """A step with known values in some slots, None in the others; no step if nothing is left to compute."""
    slot, function, operands = step
    known = [values[i] for i in operands]
    if None not in known:
        return None
    if isinstance(function, Weighted | Grouped):
        function, left = with_known_terms(function, known)
        return slot, function, tuple([operands[i] for i in left])
    if hasattr(function, "with_known"):
        function, left = function.with_known(known)
        return slot, function, tuple([operands[i] for i in left])
    return step


def needed(outputs: Iterable[Any], given: frozenset[int] = frozenset()) -> list[Expr]:
    """All formulas that the outputs depend on, operands first.

    given: serial numbers of known formulas, whose own dependencies are not needed
    """
    found: dict[int, Expr] = {}
    todo = [output for output in outputs if isinstance(output, Expr)]
    while todo:
        node = todo.pop()
        if node.serial not in found and node.serial not in given:
            found[node.serial] = node
            todo += [operand for operand in node.operands if type(operand) is Expr]
    return [found[serial] for serial in sorted(found)]


def _alike(operands: Sequence[Expr]) -> list[list[int]]:
    """Positions of the operands that depend on the same variables, those of few variables first."""
    groups: dict[frozenset[str], list[int]] = {}
    for i, operand in enumerate(operands):
        groups.setdefault(operand.free, []).append(i)
    return [groups[free] for free in sorted(groups, key=lambda free: (len(free), sorted(free)))]
