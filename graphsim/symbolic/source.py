"""A program for single numbers as the source of one Python function, which runs several times faster than its steps.

Every step becomes one line of the same arithmetic in the same order, so that results are equal to the last bit.
Lines for the usual numbers come first; where one raises (a logarithm of zero, say), lines that know all numbers follow.
The source holds operators, numbers and names made here; nothing that a user wrote becomes part of it unquoted.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from graphsim.symbolic.scalars import SCALAR, Grouped, Weighted, both, choose, divide, either
from graphsim.symbolic.staged import ProgramStep, Staged

_LINES: dict[Callable[..., Any], str] = {
    operator.add: "{} + {}", operator.sub: "{} - {}", operator.mul: "{} * {}", operator.lt: "{} < {}",
    operator.le: "{} <= {}", operator.gt: "{} > {}", operator.ge: "{} >= {}", operator.eq: "{} == {}",
    operator.ne: "{} != {}", max: "{1} if {1} > {0} else {0}", min: "{1} if {1} < {0} else {0}",
    choose: "{1} if {0} else {2}", both: "True if {0} and {1} else False", either: "True if {0} or {1} else False",
}  # fmt: skip
"""What Python has an operator for, so that no function need be called."""

_USUAL: dict[Callable[..., Any], str] = {
    divide: "{0} / {1}", SCALAR[np.log2]: "log2({0})", SCALAR[np.exp]: "exp({0})", SCALAR[np.sqrt]: "sqrt({0})",
    SCALAR[np.ceil]: "ceil({0})", SCALAR[np.floor]: "floor({0})",
    SCALAR[np.power]: "{0} ** {1} if {0} > 0.0 else {f}({0}, {1})",
}  # fmt: skip
"""What Python's own functions give, or else raise ArithmeticError or ValueError."""

_GUARDED: dict[Callable[..., Any], str] = {
    divide: "{0} / {1} if {1} else {f}({0}, {1})", SCALAR[np.log2]: "log2({0}) if {0} > 0.0 else {f}({0})",
    SCALAR[np.exp]: "exp({0}) if {0} < 700.0 else {f}({0})", SCALAR[np.sqrt]: "sqrt({0}) if {0} >= 0.0 else {f}({0})",
    SCALAR[np.ceil]: "ceil({0}) if -1e300 < {0} < 1e300 else {f}({0})",
    SCALAR[np.floor]: "floor({0}) if -1e300 < {0} < 1e300 else {f}({0})",
    SCALAR[np.power]: "{0} ** {1} if 1e-20 < {0} < 1e20 and -15.0 <= {1} <= 15.0 else {f}({0}, {1})",
}  # fmt: skip
"""The same for all numbers: where Python's own functions would raise, the function f knows what numpy gives."""

_MATHS = {function.__name__: function for function in (math.log2, math.exp, math.sqrt, math.ceil, math.floor)}


def written(
    steps: Staged, inputs: Iterable[tuple[int, str]], constants: Sequence[Any], outputs: Iterable[int]
) -> Callable[[Mapping[str, Any]], list[Any]]:
    """The function of a program: from the values of its inputs by name to those of its outputs.

    inputs: slot and name of each; constants: value of each slot that holds one, else None; outputs: slots
    """
    writer = _Writer(constants)
    given = [f"v{slot} = inputs[{name!r}]" for slot, name in inputs]
    result = f"return [{', '.join(map(writer.operand, outputs))}]"
    lines = writer.twice(lambda: [*writer.body(steps), result])
    body = "\n    ".join([*given, *lines])
    return defined("program", f"def program(inputs):\n    {body}\n", writer.names)


def written_narrowed(
    steps: Iterable[ProgramStep], seldom: Sequence[int], often: Sequence[int], constants: Sequence[Any], output: int
) -> Callable[..., Callable[..., float]]:
    """The same for one output and in two stages: a function of some inputs that gives a function of the others.

    seldom, often: slots of the inputs of either, in order; one that no step needs has the slot -1
    """
    writer = _Writer(constants)
    early, late, changing = list[ProgramStep](), list[ProgramStep](), {slot for slot in often if slot >= 0}
    for step in steps:
        if changing.isdisjoint(step[2]):
            early.append(step)
        else:
            changing.add(step[0])
            late.append(step)
    tables = [writer.narrowed(step, changing) for step in late if hasattr(step[1], "narrowed")]
    result = f"return {writer.operand(output)}"
    inner = "\n        ".join(writer.twice(lambda: [*[writer.late(step, changing) for step in late], result]))
    first = [*map(writer.line, early), *tables]
    outer = "\n    ".join([*first, f"def program({_arguments(often)}):\n        {inner}", "return program"])
    return defined("maker", f"def maker({_arguments(seldom)}):\n    {outer}\n", writer.names)


def _arguments(slots: Sequence[int]) -> str:
    return ", ".join([f"unused{at}" if slot < 0 else f"v{slot}" for at, slot in enumerate(slots)])


def defined(name: str, source: str, names: Mapping[str, Any]) -> Callable[..., Any]:
    """The function that a source made here defines; `names` are those that it uses."""
    scope = dict(names)
    exec(compile(source, f"<{name}>", "exec"), scope)
    function: Callable[..., Any] = scope[name]
    return function


class _Writer:
    """Lines of source, and the names of functions and odd constants that they use."""

    def __init__(self, constants: Sequence[Any]) -> None:
        self.constants = constants
        self.names: dict[str, Any] = dict(_MATHS)
        self._known: dict[int, str] = {}
        self._careful = True

    def twice(self, lines: Callable[[], list[str]]) -> list[str]:
        """Lines of a whole function: for usual numbers, and behind them for all, where the former raised."""
        self._careful = False
        usual = lines()
        self._careful = True
        if (careful := lines()) == usual:
            return usual
        return [
            "try:",
            *[f"    {line}" for line in usual],
            "except (ArithmeticError, ValueError):",
            "    pass",
            *careful,
        ]

    def body(self, steps: Staged) -> list[str]:
        """One line for each step."""
        lines = [self.line(step) for step in steps.before]
        lines += [self.together(function, members) for function, members in steps.durations]
        return lines + [self.line(step) for step in steps.behind]

    def operand(self, slot: int) -> str:
        value = self.constants[slot]
        if value is None:
            return f"v{slot}"
        return self._number(value) if isinstance(value, int | float) else self._named(value)

    def _number(self, value: float) -> str:
        plain = float(value) if isinstance(value, float) else value
        return f"({plain!r})" if abs(plain) < float("inf") else self._named(plain)

    def _named(self, thing: Any) -> str:
        if id(thing) not in self._known:
            name = self._known[id(thing)] = f"n{len(self.names)}"
            self.names[name] = thing
        return self._known[id(thing)]

    def line(self, step: ProgramStep) -> str:
        slot, function, operands = step
        return f"v{slot} = {self._formula(function, [self.operand(operand) for operand in operands], operands)}"

    def _formula(self, function: Callable[..., Any], terms: list[str], operands: Sequence[int]) -> str:
        if isinstance(function, Weighted | Grouped):
            return self._sum(function, terms)
        if function is divide and self.constants[operands[1]]:
            return "{} / {}".format(*terms)
        if function in _LINES:
            return _LINES[function].format(*terms)
        if function in _GUARDED:
            formula = (_GUARDED if self._careful else _USUAL)[function]
            return formula.format(*terms, f=self._named(function))
        return f"{self._named(function)}({', '.join(terms)})"

    def _sum(self, function: Weighted | Grouped, terms: list[str]) -> str:
        """Nothing is added to no constant, and no factor of one is written; neither changes a last bit."""
        products = [
            term if weight == 1.0 else f"{self._number(weight)} * {term}"
            for weight, term in zip(function.weights, terms, strict=True)
        ]
        constant = self._number(function.constant) if function.constant else ""
        if isinstance(function, Weighted):
            return " + ".join([constant, *products] if constant else products)
        total = constant
        for group in function.groups:
            part = " + ".join([products[i] for i in group])
            total = f"({part}) + ({total})" if total else part
        return total

    def narrowed(self, step: ProgramStep, changing: Container[int]) -> str:
        """A table at those of its operands that do not change."""
        slot, function, operands = step
        given = ", ".join(["None" if operand in changing else self.operand(operand) for operand in operands])
        return f"f{slot} = {self._named(function.narrowed)}(({given},))"  # type: ignore[attr-defined]

    def late(self, step: ProgramStep, changing: Container[int]) -> str:
        """One line for a step that changes; tables are narrowed ones."""
        slot, function, operands = step
        if not hasattr(function, "narrowed"):
            return self.line(step)
        others = [self.operand(operand) for operand in operands if operand in changing]
        return f"v{slot} = f{slot}({', '.join(others)})"

    def together(self, function: Callable[..., Any], members: Sequence[ProgramStep]) -> str:
        """Durations that one function times in one go."""
        slots = ", ".join(f"v{slot}" for slot, _, _ in members)
        asked = ", ".join(
            f"({self._named(duration)}, ({', '.join(map(self.operand, operands))},))"
            for _, duration, operands in members
        )
        return f"{slots}, = {self._named(function)}([{asked}])"
