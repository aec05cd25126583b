"""Formulas written out as JavaScript: a second printer, for pages that answer without a server.

Everything that a formula holds is an operation with a template, a sum, a place in a table or a call of a recorded
function; a function of Python's own has no form in JavaScript and is refused. Functions that differ in their numbers,
tables or callees alone, as those of two devices or two degrees of parallelism, share one text. `runtime.js` holds what
the printed functions use.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from importlib import resources
from typing import Any

import numpy as np

from graphsim.symbolic.expr import Expr, NotRecordable
from graphsim.symbolic.growing_sum import GrowingSum
from graphsim.symbolic.kernel import Kernel, Opaque
from graphsim.symbolic.operations import OPERATIONS
from graphsim.symbolic.program import needed
from graphsim.symbolic.tables import Cell, Interpolation, Table, Way

_LONGEST = 400
"""Characters up to which a value that is used once stands where it is used."""


def runtime() -> str:
    """The script that printed functions need: elementwise functions, tables, sums over a growing variable."""
    return resources.files("graphsim.symbolic").joinpath("runtime.js").read_text(encoding="utf-8")


class Script:
    """Functions of formulas, which share tables, kernels, numbers and texts; `text` is their script."""

    def __init__(self) -> None:
        self._numbers: dict[float, int] = {}
        self._names: dict[Any, str] = {}
        self._held: list[Any] = []
        self._lines: list[str] = []

    @property
    def text(self) -> str:
        """The script; it goes behind `runtime()`."""
        return "\n".join([f"const P=[{','.join(map(_number, self._numbers))}];", *self._lines])

    def function(self, arguments: Sequence[str], results: Sequence[Any]) -> str:
        """The name of a function from arguments, by the names of variables, to a list of the values of formulas.

        Raises NotRecordable where a formula calls a function of Python's own.
        """
        return self._function(arguments, results, lambda values: f"[{','.join(values)}]")

    def growing(self, total: GrowingSum, arguments: Sequence[str]) -> str:
        """The name of a function from the arguments to the summand and the number of its piece, functions both.

        Raises NotRecordable where the summand calls a function of Python's own.
        """
        body = _Body(self, arguments)
        level = total.level_formulas
        outer = body.statements(level, keep={node.serial for node in level})
        body.arguments[total.variable] = "x"
        inner = []
        for formula in (total.formula, total.piece_formula):
            statements = body.branch().statements([formula])
            inner.append(f"x=>{{{statements.text}return {statements.values[0]}}}")
        return self._instance(body, f"{outer.text}return[{','.join(inner)}]")

    def _function(self, arguments: Sequence[str], results: Sequence[Any], form: Callable[[list[str]], str]) -> str:
        body = _Body(self, arguments)
        printed = body.statements(results)
        return self._instance(body, f"{printed.text}return {form(printed.values)}")

    def _instance(self, body: _Body, text: str) -> str:
        """The name of a function with its own numbers, tables and callees."""
        given = ",".join(f"a{at}" for at in range(body.count))
        shape = self._line("F", f"(c,t,f)=>({given})=>{{{text}}}")
        numbers = ",".join(str(self._numbers.setdefault(value, len(self._numbers))) for value in body.numbers)
        return self._line("k", f"{shape}(N([{numbers}]),[{','.join(body.tables)}],[{','.join(body.callees)}])")

    def _line(self, kind: str, text: str) -> str:
        """The name of a constant with this text, written once."""
        if text not in self._names:
            self._names[text] = f"{kind}{len(self._names)}"
            self._lines.append(f"const {self._names[text]}={text};")
        return self._names[text]

    def kernel(self, kernel: Kernel) -> str:
        """The name of a recorded function."""
        return self._known(kernel, lambda: self._function(kernel.arguments, [kernel.result], lambda values: values[0]))

    def data(self, values: Any) -> str:
        """The name of an array of numbers."""
        return self._known(values, lambda: self._line("T", _array(np.asarray(values, dtype=float).ravel())))

    def _known(self, thing: Any, made: Callable[[], str]) -> str:
        if id(thing) not in self._names:
            self._held.append(thing)
            self._names[id(thing)] = made()
        return self._names[id(thing)]


class _Statements:
    """Statements, and behind them an expression for each value."""

    def __init__(self, text: str, values: list[str]) -> None:
        self.text, self.values = text, values


class _Body:
    """The inside of one function: what it takes, and the numbers, tables and functions that it refers to by place."""

    def __init__(self, script: Script, arguments: Sequence[str]) -> None:
        self.arguments = {name: f"a{at}" for at, name in enumerate(arguments)}
        self.count = len(arguments)
        self.numbers: list[float] = []
        self.tables: list[str] = []
        self.callees: list[str] = []
        self._script, self._locals = script, 0
        self._known: dict[int, str] = {}

    def branch(self) -> _Body:
        """The same with what is known so far, for an inner function."""
        other = _Body(self._script, ())
        other.arguments, other.numbers, other.tables, other.callees = (
            self.arguments, self.numbers, self.tables, self.callees,
        )  # fmt: skip
        other._known, other._locals = dict(self._known), self._locals
        return other

    def statements(self, results: Sequence[Any], keep: Iterable[int] = ()) -> _Statements:
        """What computes the results. Values used once stand where they are used.

        keep: serial numbers of formulas that get a name in any case
        """
        nodes = needed(results, given=frozenset(self._known))
        kept = set(keep)
        uses = Counter([x.serial for x in results if isinstance(x, Expr)])
        for node in nodes:
            uses.update([x.serial for x in node.operands if isinstance(x, Expr)])
        lines = []
        for node in nodes:
            form = self.arguments[node.name] if node.name else self._formula(node)
            if not node.name and (uses[node.serial] > 1 or node.serial in kept or len(form) > _LONGEST):
                lines.append(f"const v{self._locals}={form};")
                form = f"v{self._locals}"
                self._locals += 1
            self._known[node.serial] = form
        return _Statements("".join(lines), [self._operand(result) for result in results])

    def _operand(self, operand: Any) -> str:
        if isinstance(operand, Expr):
            return self._known[operand.serial]
        if isinstance(operand, bool | np.bool_):
            return "true" if operand else "false"
        value = float(operand)
        if value in (0.0, 1.0) or not math.isfinite(value):
            return _number(value)
        self.numbers.append(value)
        return f"c[{len(self.numbers) - 1}]"

    def _formula(self, node: Expr) -> str:
        function: Any = node.function
        if node.linear is not None:
            return self._sum(*node.linear, node.operands)
        if _same(function, node.operands):
            return self._operand(node.operands[1])
        terms = [self._operand(operand) for operand in node.operands]
        if isinstance(function, Cell):
            return f"cell({self._table(function.axis.knots)},{terms[0]})"
        if isinstance(function, Way):
            return f"way({self._table(function.axis.knots)},{','.join(terms)})"
        if isinstance(function, Table):
            return _look_up(self._table(function.values), function.strides, terms)
        if isinstance(function, Interpolation):
            ends = [_number(function.values[at] if end is None else end)
                    for at, end in ((0, function.left), (-1, function.right))]  # fmt: skip
            data = self._table(function.knots), self._table(function.values)
            return f"interp({','.join([*data, terms[0], *ends])})"
        if isinstance(function, Kernel):
            return f"{_placed(self.callees, 'f', self._script.kernel(function))}({','.join(terms)})"
        if function not in OPERATIONS:
            reason = function.refused if isinstance(function, Opaque) else f"{function} is a function of Python's own"
            raise NotRecordable(f"no formula in JavaScript: {reason}")
        return OPERATIONS[function].javascript.format(*terms)

    def _sum(self, constant: float, weights: Sequence[tuple[int, float]], operands: Sequence[Any]) -> str:
        parts = [] if constant == 0.0 else [self._operand(constant)]
        for (_, weight), operand in zip(weights, operands, strict=True):
            term = self._operand(operand)
            parts.append(f"+{term}" if weight == 1.0 else f"{self._operand(weight)}*{term}")
        return f"({'+'.join(part.removeprefix('+') for part in parts)})" if len(parts) > 1 else f"({parts[0]})"

    def _table(self, values: Any) -> str:
        return _placed(self.tables, "t", self._script.data(values))


def _same(function: Any, operands: Sequence[Any]) -> bool:
    """Whether an operation gives its second operand back."""
    nothing = {np.multiply: 1.0, np.add: 0.0}.get(function)
    return nothing is not None and not isinstance(operands[0], Expr) and operands[0] == nothing


def _look_up(values: str, strides: Sequence[int], terms: Sequence[str]) -> str:
    """A place in a table; those of one and two coordinates have functions of their own, which are faster."""
    if len(strides) == 1:
        return f"table1({','.join([values, *terms])})"
    if len(strides) == 2:
        return f"table2({','.join([values, str(strides[0]), *terms])})"
    return f"table({values},{json.dumps(strides)},0,0,[{','.join(terms)}])"


def _placed(names: list[str], kind: str, name: str) -> str:
    """A reference by place, so that functions of other tables or callees have the same text."""
    if name not in names:
        names.append(name)
    return f"{kind}[{names.index(name)}]"


def _number(value: float) -> str:
    value = float(value)
    if not math.isfinite(value):
        return {"inf": "Infinity", "-inf": "(-Infinity)", "nan": "NaN"}[repr(value)]
    text = repr(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)
    return f"({text})" if value < 0 else text


def _array(values: np.ndarray) -> str:
    """An array of floats to 14 digits behind the point; whole thousandths are written as whole numbers."""
    thousandths = np.round(values * 1000.0)
    if np.allclose(thousandths / 1000.0, values, rtol=1e-15, atol=1e-15):
        return f"D([{','.join(str(int(value)) for value in thousandths)}],1000)"
    return f"D([{','.join(_number(value) if abs(value) < 1e-3 else _short(value) for value in values)}],1)"


def _short(value: float) -> str:
    text = _number(round(float(value), 14)).strip("()")
    return text.replace("0.", ".", 1) if text.removeprefix("-").startswith("0.") else text
