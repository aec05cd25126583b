"""A program for single numbers as the source code of one Python function, which runs several times faster than its
steps.

Every step becomes a line or a few of the same arithmetic in the same order, so that results are equal to the last bit.
The source contains only operators, numbers and generated names; user text never becomes part of it unquoted.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Container, Sequence
from typing import Any

import numpy as np

from graphsim.symbolic.operations import OPERATIONS, Function
from graphsim.symbolic.sums import Grouped, Weighted
from graphsim.symbolic.tables import Cell, Position, Table

ProgramStep = tuple[int, Function, tuple[int, ...]]
"""Slot of the result, operation, and slots of its operands."""

_BUILT_IN = {f.__name__: f for f in (math.log2, math.exp, math.sqrt, math.ceil, math.floor, bisect_right)}


def printed(
    steps: Sequence[ProgramStep], inputs: Sequence[int], constants: Sequence[Any], outputs: Sequence[int]
) -> Callable[..., list[Any]]:
    """The function of a program, from the values of its inputs, in order, to those of its outputs.

    inputs, outputs: slots
    constants: value of each slot that holds one, else None
    """
    printer = _Printer(constants)
    for step in steps:
        printer.step(*step)
    lines = [*printer.lines, f"return [{', '.join(map(printer.operand, outputs))}]"]
    return _defined([f"def program({_arguments(inputs)}):", *_indented(lines)], printer.names)


def lines_of(steps: Sequence[ProgramStep], constants: Sequence[Any]) -> list[str]:
    """The lines of some steps."""
    printer = _Printer(constants)
    for step in steps:
        printer.step(*step)
    return printer.lines


def printed_in_stages(
    steps: Sequence[ProgramStep], early: Sequence[int], late: Sequence[int], constants: Sequence[Any], output: int
) -> Callable[..., Callable[..., float]]:
    """The same for one output and in two stages: a function of the early inputs that gives a function of the late ones.

    Parts that depend only on the early inputs are computed once for their values, including last coordinates of tables.
    """
    printer, changing = _Printer(constants), set(late)
    behind: list[ProgramStep] = []
    for step in steps:
        if changing.isdisjoint(step[2]):
            printer.step(*step)
        else:
            changing.add(step[0])
            behind.append(step)
    before = printer.taken()
    for slot, function, operands in behind:
        if isinstance(function, Table) and changing.isdisjoint(operands[-2:]):
            before.append(printer.narrowed(slot, function, operands, changing))
        else:
            printer.step(slot, function, operands)
    inner = [*printer.taken(), f"return {printer.operand(output)}"]
    lines = [*before, f"def late({_arguments(late)}):", *_indented(inner), "return late"]
    return _defined([f"def program({_arguments(early)}):", *_indented(lines)], printer.names)


def _arguments(slots: Sequence[int]) -> str:
    return ", ".join([f"v{slot}" for slot in slots])


def _indented(lines: Sequence[str]) -> list[str]:
    return [f"    {line}" for line in lines]


def _defined(lines: Sequence[str], names: dict[str, Any]) -> Callable[..., Any]:
    scope = dict(names)
    exec(compile("\n".join(lines) + "\n", "<program>", "exec"), scope)
    function: Callable[..., Any] = scope["program"]
    return function


class _Printer:
    """Lines of source, and the names of functions, tables and odd constants that they use."""

    def __init__(self, constants: Sequence[Any]) -> None:
        self.constants = constants
        self.lines: list[str] = []
        self.names: dict[str, Any] = dict(_BUILT_IN)
        self._known: dict[int, str] = {}

    def operand(self, slot: int) -> str:
        """A variable's name, or a number."""
        value = self.constants[slot]
        return f"v{slot}" if value is None else self._number(value)

    def taken(self) -> list[str]:
        """Return the lines so far and clear them."""
        taken, self.lines = self.lines, []
        return taken

    def step(self, slot: int, function: Function, operands: tuple[int, ...]) -> None:
        """The lines of one step."""
        terms = [self.operand(operand) for operand in operands]
        if isinstance(function, Cell):
            self._add(slot, f"bisect_right({self._named(function.axis.inner_list)}, {terms[0]})")
        elif isinstance(function, Position):
            self._way(slot, function, *terms)
        elif isinstance(function, Table):
            self._table(slot, function, terms)
        elif isinstance(function, Weighted | Grouped):
            self._add(slot, self._sum(function, terms))
        else:
            self._add(slot, self._operation(function, terms, operands))

    def _add(self, slot: int | str, formula: str) -> None:
        self.lines.append(f"v{slot} = {formula}")

    def _operation(self, function: Function, terms: list[str], operands: tuple[int, ...]) -> str:
        operation = OPERATIONS.get(function)
        if operation is None:
            return f"{self._named(function)}({', '.join(terms)})"
        if function is np.true_divide and self.constants[operands[1]]:
            return "{} / {}".format(*terms)
        name = self._named(operation.number) if "{f}" in operation.python else ""
        return operation.python.format(*terms, f=name)

    def _way(self, slot: int, function: Position, x: str, i: str) -> None:
        knots, gaps = self._named(function.axis.knots_list), self._named(function.axis.gaps_list)
        self._add(slot, f"({x} - {knots}[{i}]) / {gaps}[{i}]")
        self._add(slot, f"0.0 if v{slot} < 0.0 else 1.0 if v{slot} > 1.0 else v{slot}")

    def _table(self, slot: int, function: Table, terms: list[str]) -> None:
        self._between(slot, self._named(function.flat_list), self._named(function.rise_list), function.strides, terms)

    def narrowed(self, slot: int, function: Table, operands: Sequence[int], changing: Container[int]) -> str:
        """The line that narrows a table to fewer coordinates, if the last ones do not change; its value is computed
        later.
        """
        terms = [self.operand(operand) for operand in operands]
        last = max([at for at, operand in enumerate(operands) if operand in changing]) // 2 + 1
        strides = [stride // function.strides[last - 1] for stride in function.strides[:last]]
        self._between(slot, f"t{slot}", f"r{slot}", strides, terms[: 2 * last])
        return f"t{slot}, r{slot} = {self._named(function.narrowed)}({', '.join(terms[2 * last :])})"

    def _between(self, slot: int, values: str, rise: str, strides: Sequence[int], terms: Sequence[str]) -> None:
        """Lines of a table's value, along its last coordinate first."""
        ways = terms[1::2]
        base = " + ".join(
            [f"{i} * {stride}" if stride > 1 else i for i, stride in zip(terms[::2], strides, strict=True)]
        )
        if len(ways) > 1:
            self._add(f"{slot}_i", base)
            base = f"v{slot}_i"

        def between(name: str, offset: int, axis: int) -> None:
            if axis == len(ways) - 1:
                cell = f"{base} + {offset}" if offset else base
                self._add(name, f"{values}[{cell}] + {rise}[{cell}] * {ways[axis]}")
                return
            between(f"{name}_0", offset, axis + 1)
            between(f"{name}_1", offset + strides[axis], axis + 1)
            self._add(name, f"v{name}_0 + (v{name}_1 - v{name}_0) * {ways[axis]}")

        between(str(slot), 0, 0)

    def _sum(self, function: Weighted | Grouped, terms: list[str]) -> str:
        """A constant of 0 and factors of 1 are left out, without any change in rounding."""
        products = [
            term if weight == 1.0 else f"{self._number(weight)} * {term}"
            for weight, term in zip(function.weights, terms, strict=True)
        ]
        return " + ".join([self._number(function.constant), *products] if function.constant else products)

    def _number(self, value: Any) -> str:
        plain = float(value) if isinstance(value, float) else value
        return f"({plain!r})" if isinstance(plain, int | float) and abs(plain) < math.inf else self._named(plain)

    def _named(self, thing: Any) -> str:
        if id(thing) not in self._known:
            name = self._known[id(thing)] = f"n{len(self.names)}"
            self.names[name] = thing
        return self._known[id(thing)]
