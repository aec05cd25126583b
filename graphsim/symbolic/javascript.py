"""Formulas printed as JavaScript, for pages that work without a server.

Everything that a formula holds is an operation with a template, a sum, a place in a table or a call of a recorded
function; Python functions have no form in JavaScript and are refused. Functions that differ only in their numbers,
tables or callees, as those of two devices or two degrees of parallelism, share one text. `runtime.js` holds what the
printed functions use.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from importlib import resources
from typing import Any

import numpy as np

from graphsim.symbolic.canonical import Shapes
from graphsim.symbolic.expr import Expr, NotRecordable
from graphsim.symbolic.growing_sum import GrowingSum
from graphsim.symbolic.guard import Guard
from graphsim.symbolic.guards import Guards
from graphsim.symbolic.javascript_texts import Texts, held, shortest
from graphsim.symbolic.kernel import Kernel, Opaque
from graphsim.symbolic.operations import OPERATIONS
from graphsim.symbolic.tables import Cell, Interpolation, Position, Table

_LONGEST = 400
"""Characters up to which a value that is used once is inlined."""


def runtime() -> str:
    """The script that printed functions need: elementwise functions, tables, sums over a growing variable."""
    return resources.files("graphsim.symbolic").joinpath("runtime.js").read_text(encoding="utf-8")


class Script:
    """Functions of formulas, which share tables, kernels, numbers and texts; `text` is their script."""

    def __init__(self) -> None:
        self._texts, self.shapes = Texts(), Shapes()
        self._names: dict[int, str] = {}
        self._held: list[Any] = []

    @property
    def text(self) -> str:
        """The script; it is placed after `runtime()`."""
        return self._texts.script

    def names(self, names: Sequence[str]) -> str:
        """The name of a list of texts, which may hold anything."""
        return self._listed(list(names))

    def guards(self, guards: Guards) -> str:
        """An object that `refusals` of the runtime takes: names of inputs, a function of them, and the sentences.

        Raises NotRecordable if a guard calls a Python function.
        """
        inputs = sorted({name for result in guards.formulas if isinstance(result, Expr) for name in result.free})
        told = [self._listed([guard.rule, guard.about, _parts(guard)]) for guard in guards.guards]
        answers = self.function(inputs, guards.formulas)
        return f"{{inputs:{self.names(inputs)},answers:{answers},guards:[{','.join(told)}]}}"

    def _listed(self, values: list[Any]) -> str:
        return self._texts.constant("L", json.dumps(values).replace("<", "\\u003c").replace(">", "\\u003e"))

    def function(self, arguments: Sequence[str], results: Sequence[Any]) -> str:
        """The name of a function from arguments, by the names of variables, to a list of the values of formulas.

        Raises NotRecordable if a formula calls a Python function.
        """
        return self._function(arguments, results, lambda values: f"[{','.join(values)}]")

    def growing(self, total: GrowingSum, arguments: Sequence[str]) -> str:
        """The name of a function from the arguments to the summand and the number of its piece, functions both.

        Raises NotRecordable if the summand calls a Python function.
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
        return self._texts.function(f"({given})=>{{{text}}}", tuple(body.parts))

    def kernel(self, kernel: Kernel) -> str:
        """The name of a recorded function."""
        return self._known(kernel, lambda: self._function(kernel.arguments, [kernel.result], lambda values: values[0]))

    def data(self, values: Any) -> str:
        """The name of an array of numbers."""
        return self._known(values, lambda: self._texts.constant("T", _array(np.asarray(values, dtype=float).ravel())))

    def _known(self, thing: Any, made: Callable[[], str]) -> str:
        if id(thing) not in self._names:
            self._held.append(thing)
            self._names[id(thing)] = made()
        return self._names[id(thing)]


def _parts(guard: Guard) -> list[str | int]:
    """A guard's sentence: texts, and for each number whether it is told with all its digits."""
    return [part if isinstance(part, str) else int(part.exact) for part in guard.sentence]


class _Statements:
    """Statements, followed by an expression for each value."""

    def __init__(self, text: str, values: list[str]) -> None:
        self.text, self.values = text, values


class _Body:
    """The body of one function: its arguments, and the numbers, tables and functions that it refers to by position."""

    def __init__(self, script: Script, arguments: Sequence[str]) -> None:
        self.arguments = {name: f"a{at}" for at, name in enumerate(arguments)}
        self.count = len(arguments)
        self.parts: list[float | str] = []
        self._script, self._locals = script, 0
        self._known: dict[int, str] = {}

    def branch(self) -> _Body:
        """A copy with the current state, for an inner function."""
        other = _Body(self._script, ())
        other.arguments, other.parts = self.arguments, self.parts
        other._known, other._locals = dict(self._known), self._locals
        return other

    def statements(self, results: Sequence[Any], keep: Iterable[int] = ()) -> _Statements:
        """The statements that compute the results. Values used once are inlined.

        keep: serial numbers of formulas that get a name in any case
        """
        nodes = self._script.shapes.ordered(results, self._known)
        kept = set(keep)
        uses = Counter([x.serial for x in results if isinstance(x, Expr)])
        for node in nodes:
            uses.update([x.serial for x in node.operands if isinstance(x, Expr)])
        named = []
        for node in nodes:
            form = self.arguments[node.name] if node.name else self._formula(node)
            if not node.name and (uses[node.serial] > 1 or node.serial in kept or len(form) > _LONGEST):
                named.append(f"v{self._locals}={_bare(form)}")
                form = f"v{self._locals}"
                self._locals += 1
            self._known[node.serial] = form
        return _Statements(
            f"const {','.join(named)};" if named else "", [_bare(self._operand(result)) for result in results]
        )

    def _operand(self, operand: Any) -> str:
        if isinstance(operand, Expr):
            return self._known[operand.serial]
        if isinstance(operand, bool | np.bool_):
            return "true" if operand else "false"
        return self._placed("n", float(operand))

    def _placed(self, kind: str, part: float | str) -> str:
        self.parts.append(part)
        return held(kind, len(self.parts) - 1)

    def _formula(self, node: Expr) -> str:
        function: Any = node.function
        if node.linear is not None:
            return self._sum(node.linear[0], self._script.shapes.operands(node))
        operands = [operand for operand, _ in self._script.shapes.operands(node)]
        if function in _IN_FRONT and not isinstance(operands[0], Expr | bool | np.bool_):
            return f"({self._placed(_IN_FRONT[function], float(operands[0]))}{self._operand(operands[1])})"
        terms = [self._operand(operand) for operand in operands]
        if isinstance(function, Cell):
            return f"cell({self._table(function.axis.knots)},{terms[0]})"
        if isinstance(function, Position):
            return f"way({self._table(function.axis.knots)},{','.join(terms)})"
        if isinstance(function, Table):
            return _look_up(self._table(function.values), function.strides, terms)
        if isinstance(function, Interpolation):
            ends = [self._operand(function.values[at] if end is None else end)
                    for at, end in ((0, function.left), (-1, function.right))]  # fmt: skip
            data = self._table(function.knots), self._table(function.values)
            return f"interp({','.join([*data, terms[0], *ends])})"
        if isinstance(function, Kernel):
            return f"{self._placed('n', self._script.kernel(function))}({','.join(terms)})"
        if function not in OPERATIONS:
            reason = function.refused if isinstance(function, Opaque) else f"{function} is a function of Python's own"
            raise NotRecordable(f"no formula in JavaScript: {reason}")
        return OPERATIONS[function].javascript.replace(" ", "").format(*terms)

    def _sum(self, constant: float, terms: Sequence[tuple[Any, float]]) -> str:
        parts = [f"{self._placed('w', weight)}{self._operand(operand)}" for operand, weight in terms]
        return f"({self._placed('s', constant)}{'+'.join(parts)})"

    def _table(self, values: Any) -> str:
        return self._placed("n", self._script.data(values))


_IN_FRONT = {np.multiply: "w", np.add: "s"}
"""Operations whose neutral first operand, 1 or 0, may be left out."""


def _bare(form: str) -> str:
    """An expression without the parentheses around all of it."""
    if not form.startswith("("):
        return form
    depth = 0
    for at, letter in enumerate(form):
        depth += (letter == "(") - (letter == ")")
        if not depth:
            return form[1:-1] if at == len(form) - 1 else form
    return form


def _look_up(values: str, strides: Sequence[int], terms: Sequence[str]) -> str:
    """A place in a table; those of one and two coordinates have faster special functions."""
    if len(strides) == 1:
        return f"table1({','.join([values, *terms])})"
    if len(strides) == 2:
        return f"table2({','.join([values, str(strides[0]), *terms])})"
    return f"table({values},{json.dumps(strides)},0,0,[{','.join(terms)}])"


def _array(values: np.ndarray) -> str:
    """An array of floats to 14 digits after the point; whole thousandths are written as whole numbers."""
    thousandths = np.round(values * 1000.0)
    if np.allclose(thousandths / 1000.0, values, rtol=1e-15, atol=1e-15):
        return f"D([{','.join(str(int(value)) for value in thousandths)}],1000)"
    return f"D([{','.join(shortest(value if abs(value) < 1e-3 else round(value, 14)) for value in values.tolist())}],1)"
