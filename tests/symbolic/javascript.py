"""Formulas written out as JavaScript: a second printer, which proves that their form is data.

Everything that a formula holds is an operation with a template, a sum, a place in a table or a call of a recorded
function; a function of Python's own has no form in JavaScript and is refused.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from graphsim.symbolic.expr import Expr
from graphsim.symbolic.kernel import Kernel
from graphsim.symbolic.operations import OPERATIONS
from graphsim.symbolic.program import needed
from graphsim.symbolic.tables import Cell, Interpolation, Table, Way

NODE = shutil.which("node")

RUNTIME = """
const cell = (k, x) => { let i = 0; while (i < k.length - 2 && x >= k[i + 1]) i++; return i };
const way = (k, x, i) => Math.min(Math.max((x - k[i]) / (k[i + 1] - k[i]), 0), 1);
const interp = (k, v, x) => { const i = cell(k, x); return x <= k[0] ? v[0] : x >= k[k.length - 1] ? v[v.length - 1] :
  (v[i + 1] - v[i]) / (k[i + 1] - k[i]) * (x - k[i]) + v[i] };
function between(t, shape, base, at, places) {
  if (at === shape.length) return t[base];
  const stride = shape.slice(at + 1).reduce((a, b) => a * b, 1), [i, w] = [places[2 * at], places[2 * at + 1]];
  const low = between(t, shape, base + i * stride, at + 1, places);
  return low + (between(t, shape, base + (i + 1) * stride, at + 1, places) - low) * w;
}
"""
"""What tables need."""


class Printer:
    """One script of several functions."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._names: dict[int, str] = {}
        self._held: list[Any] = []

    def function(self, arguments: Sequence[str], results: Sequence[Any]) -> str:
        """The name of a function from arguments, by the names of variables, to the values of formulas."""
        names = {name: f"a{at}" for at, name in enumerate(arguments)}
        known: dict[int, str] = {}
        lines = []
        for node in needed(results):
            known[node.serial] = names[node.name] if node.name else f"v{node.serial}"
            if not node.name:
                lines.append(f"const v{node.serial} = {self._formula(node, known)};")
        name = f"f{len(self.lines)}"
        returned = ", ".join([_operand(result, known) for result in results])
        self.lines.append(f"function {name}({', '.join(names.values())}) {{ {' '.join(lines)} return [{returned}] }}")
        return name

    def _formula(self, node: Expr, known: Mapping[int, str]) -> str:
        function: Any = node.function
        terms = [_operand(operand, known) for operand in node.operands]
        if node.linear is not None:
            constant, weights = node.linear
            products = [f"{_number(weight)} * {term}" for (_, weight), term in zip(weights, terms, strict=True)]
            return " + ".join([_number(constant), *products])
        if isinstance(function, Cell):
            return f"cell({self._data(function.axis.knots)}, {terms[0]})"
        if isinstance(function, Way):
            return f"way({self._data(function.axis.knots)}, {', '.join(terms)})"
        if isinstance(function, Table):
            values, shape = function.values.ravel(), list(function.values.shape)
            return f"between({self._data(values)}, {shape}, 0, 0, [{', '.join(terms)}])"
        if isinstance(function, Interpolation):
            return f"interp({self._data(function.knots)}, {self._data(function.values)}, {terms[0]})"
        if isinstance(function, Kernel):
            return f"{self._kernel(function)}({', '.join(terms)})[0]"
        return OPERATIONS[function].javascript.format(*terms)

    def _kernel(self, kernel: Kernel) -> str:
        if id(kernel) not in self._names:
            self._held.append(kernel)
            self._names[id(kernel)] = self.function(kernel.arguments, [kernel.result])
        return self._names[id(kernel)]

    def _data(self, values: Any) -> str:
        if id(values) not in self._names:
            self._held.append(values)
            name = self._names[id(values)] = f"t{len(self.lines)}"
            self.lines.append(f"const {name} = {json.dumps(np.asarray(values, dtype=float).tolist())};")
        return self._names[id(values)]


def _operand(operand: Any, known: Mapping[int, str]) -> str:
    return known[operand.serial] if isinstance(operand, Expr) else _number(operand)


def _number(value: Any) -> str:
    if isinstance(value, bool | np.bool_):
        return "true" if value else "false"
    return {"inf": "Infinity", "-inf": "(-Infinity)", "nan": "NaN"}.get(repr(float(value)), f"({float(value)!r})")


def run(results: Sequence[Any], points: Sequence[Mapping[str, float]]) -> list[list[float]]:
    """The values of formulas at some points, by node."""
    assert NODE is not None
    printer, names = Printer(), sorted({name for r in results if isinstance(r, Expr) for name in r.free})
    main = printer.function(names, results)
    asked = json.dumps([[point[name] for name in names] for point in points])
    text = f"{asked}.map(p => {main}(...p).map(x => Number(x).toString()))"
    script = "\n".join([RUNTIME, *printer.lines, f"console.log(JSON.stringify({text}))"])
    done = subprocess.run([NODE, "-"], input=script, capture_output=True, text=True, check=True, timeout=60)
    return [[float(x.replace("Infinity", "inf")) for x in row] for row in json.loads(done.stdout)]
