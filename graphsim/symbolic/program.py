"""Recorded formulas as straight-line programs: a list of steps over slots, for floats and for arrays."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from graphsim.symbolic.expr import Expr
from graphsim.symbolic.scalars import EXACT, SCALAR, Grouped, Weighted
from graphsim.symbolic.source import written, written_narrowed
from graphsim.symbolic.staged import ProgramStep, Staged, staged

_WRITE_AFTER = 32
"""Runs with inputs of one kind from which on the program's source for them pays."""

_NONE: frozenset[str] = frozenset()


class Program:
    """Evaluates some formulas of a tape together; what they share is computed once.

    Inputs may be floats, or arrays that broadcast against each other: a formula is computed in the shape of the
    variables that it depends on, so a grid given as one axis per variable costs little more than its axes.
    """

    def __init__(self, outputs: Sequence[Any]) -> None:
        self._slots: dict[int, int] = {}
        self._start: list[Any] = []
        self._inputs: list[tuple[int, str]] = []
        self._scalar: list[ProgramStep] = []
        self._array: list[ProgramStep] = []
        self._free: list[frozenset[str]] = []
        self._versions: dict[tuple[frozenset[str], bool], _Version] = {}
        for node in needed(outputs):
            self._emit(node)
        self._outputs = [self._slot(output) for output in outputs]

    def __call__(self, inputs: Mapping[str, Any], *, along: bool = False) -> list[Any]:
        """The outputs' values. Raises KeyError for a variable that is not given.

        along: whether arrays are the steps of one scenario; then functions that have a faster way, equal to rounding,
            take it
        """
        arrays = self._arrays(inputs)
        version = self._versions.get((arrays, along))
        if version is None:
            steps = self._mixed(arrays, along) if arrays else staged(self._scalar)
            version = self._versions[arrays, along] = _Version(steps)
        if version.source is None:
            version.runs += 1
            if version.runs <= _WRITE_AFTER:
                return self._step_by_step(version.steps, inputs)
            version.source = written(version.steps, self._inputs, self._start, self._outputs)
        return version.source(inputs)

    def of_numbers(self, seldom: Sequence[str], often: Sequence[str]) -> Callable[..., Callable[..., float]]:
        """The only output for numbers alone: a function of those that seldom change that gives one of the others.

        What depends on the former alone is computed once for each of their values.
        """
        slots = {name: slot for slot, name in self._inputs}
        orders = [[slots.get(name, -1) for name in names] for names in (seldom, often)]
        return written_narrowed(self._scalar, orders[0], orders[1], self._start, self._outputs[0])

    def _mixed(self, arrays: frozenset[str], along: bool) -> Staged:
        """The steps where these inputs are arrays; what depends on none of them is computed as a number where that
        rounds alike."""
        numbers = SCALAR if along else EXACT
        steps = []
        for free, (slot, function, operands) in zip(self._free, self._array, strict=True):
            varies = bool(free & arrays)
            chosen = getattr(function, "along", function) if along and varies else function
            steps.append((slot, chosen if varies else numbers.get(function, function), operands))
        return Staged(steps, [], [])

    def _arrays(self, inputs: Mapping[str, Any]) -> frozenset[str]:
        """The names of the inputs that are arrays; quick where all are floats."""
        for _, name in self._inputs:
            if type(inputs[name]) is not float:
                return frozenset([name for _, name in self._inputs if isinstance(inputs[name], np.ndarray)])
        return _NONE

    def _step_by_step(self, steps: Staged, inputs: Mapping[str, Any]) -> list[Any]:
        values = self._start.copy()
        for slot, name in self._inputs:
            values[slot] = inputs[name]
        _run(steps.before, values)
        _time(steps, values)
        _run(steps.behind, values)
        return [values[slot] for slot in self._outputs]

    def _slot(self, operand: Any) -> int:
        if isinstance(operand, Expr) and operand.serial in self._slots:
            return self._slots[operand.serial]
        self._start.append(None if isinstance(operand, Expr) else operand)
        if isinstance(operand, Expr):
            self._slots[operand.serial] = len(self._start) - 1
        return len(self._start) - 1

    def _emit(self, node: Expr) -> None:
        operands = tuple(self._slot(operand) for operand in node.operands)
        slot = self._slot(node)
        if node.name:
            self._inputs.append((slot, node.name))
            return
        self._free.append(node.free)
        if node.linear is not None:
            constant, terms = node.linear
            weights = [coefficient for _, coefficient in terms]
            self._scalar.append((slot, Weighted(constant, weights), operands))
            self._array.append((slot, Grouped(constant, weights, _alike(node.operands)), operands))
        else:
            function: Any = node.function
            self._scalar.append((slot, SCALAR.get(function, function), operands))
            self._array.append((slot, function, operands))


class _Version:
    """The steps of a program for inputs of one kind, how often they ran, and their source once it pays."""

    def __init__(self, steps: Staged) -> None:
        self.steps, self.runs = steps, 0
        self.source: Callable[[Mapping[str, Any]], list[Any]] | None = None


def _run(steps: Iterable[ProgramStep], values: list[Any]) -> None:
    for slot, function, operands in steps:
        if len(operands) == 2:
            values[slot] = function(values[operands[0]], values[operands[1]])
        else:
            values[slot] = function(*[values[i] for i in operands])


def _time(steps: Staged, values: list[Any]) -> None:
    """All durations at once, where they know how to be timed together."""
    for together, members in steps.durations:
        asked = [(function, tuple([values[i] for i in operands])) for _, function, operands in members]
        for (slot, _, _), seconds in zip(members, together(asked), strict=True):
            values[slot] = seconds


def needed(outputs: Iterable[Any]) -> list[Expr]:
    """All formulas that the outputs depend on, operands first."""
    found: dict[int, Expr] = {}
    todo = [output for output in outputs if isinstance(output, Expr)]
    while todo:
        node = todo.pop()
        if node.serial not in found:
            found[node.serial] = node
            todo += [operand for operand in node.operands if isinstance(operand, Expr)]
    return [found[serial] for serial in sorted(found)]


def _alike(operands: Sequence[Expr]) -> list[list[int]]:
    """Positions of the operands that depend on the same variables, those of few variables first."""
    groups: dict[frozenset[str], list[int]] = {}
    for i, operand in enumerate(operands):
        groups.setdefault(operand.free, []).append(i)
    return [groups[free] for free in sorted(groups, key=lambda free: (len(free), sorted(free)))]
