"""Arithmetic expressions in users' files, such as `2 * heads * head_dim`: parsed into a tree, never run as code.

Numbers, names, `+ - * / // % **`, a sign, parentheses, `min`, `max`, `ceil`, `floor`. An expression can be evaluated
for numbers and for arrays over scenarios, and is hashable, so that descriptions that contain it can be compared.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np

from graphsim.errors import ConfigError, choices_text
from graphsim.units import Num, amount_text

MAX_LENGTH = 200
MAX_DEPTH = 20
MAX_EXPONENT = 8
MAX_NUMBER = 1e15

_BINARY: dict[type[ast.operator], str] = {
    ast.Add: "+",
    ast.Sub: "-",
    ast.Mult: "*",
    ast.Div: "/",
    ast.FloorDiv: "//",
    ast.Mod: "%",
    ast.Pow: "**",
}
_FUNCTIONS: dict[str, Callable[..., Num]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
    "//": operator.floordiv,
    "%": operator.mod,
    "**": operator.pow,
    "min": lambda *values: reduce(np.minimum, values),
    "max": lambda *values: reduce(np.maximum, values),
    "ceil": np.ceil,
    "floor": np.floor,
}
_ARGUMENTS = {"min": (2, 8), "max": (2, 8), "ceil": (1, 1), "floor": (1, 1)}
_ALLOWED = "numbers, names, + - * / // % **, parentheses, min, max, ceil, floor"


@dataclass(frozen=True, slots=True)
class Number:
    """A constant."""

    value: float


@dataclass(frozen=True, slots=True)
class Name:
    """A name, whose value is looked up."""

    name: str


@dataclass(frozen=True, slots=True)
class Operation:
    """An operator or function with its arguments."""

    function: str
    arguments: tuple[Node, ...]


Node = Number | Name | Operation


@dataclass(frozen=True, slots=True)
class Expression:
    """A parsed expression; two expressions with the same tree are equal."""

    root: Node

    @property
    def names(self) -> frozenset[str]:
        """The names in the expression."""
        return frozenset(_names(self.root))

    @property
    def is_size(self) -> bool:
        """Whether its form guarantees a finite value of at least 0 for all names of at least 0."""
        return _is_finite(self.root) and _is_positive(self.root)

    def bind(self, values: Mapping[str, float]) -> Expression:
        """The expression with the names in `values` replaced by their numbers; other names remain."""
        root = _bind(self.root, values)
        if not isinstance(root, Number) and not set(_names(root)):
            root = Number(float(_evaluate(root, {})))
        return Expression(root)

    def evaluate(self, values: Mapping[str, Num]) -> Num:
        """The value; not finite if a divisor is 0 or a power has no real value. Every name must be given."""
        with np.errstate(all="ignore"):
            return _evaluate(self.root, values)

    def __str__(self) -> str:
        """The expression as text, with every operation in parentheses."""
        return _text(self.root)


def parse(text: object, names: Mapping[str, Any] | frozenset[str] | None = None) -> Expression:
    """The expression for a number or a text.

    text: the number or text
    names: names that the expression may use; None for any
    Raises ConfigError that states what is wrong and what is allowed; the caller adds the location.
    """
    if isinstance(text, int | float) and not isinstance(text, bool):
        return Expression(_number(text))
    if not isinstance(text, str):
        raise ConfigError(f"expected a number or arithmetic on names such as heads * head_dim, found {str(text)[:60]}")
    if not text.strip() or len(text) > MAX_LENGTH:
        raise ConfigError(f"expected arithmetic of 1 to {MAX_LENGTH} characters, found {len(text)}")
    try:
        tree = ast.parse(text.strip(), mode="eval")
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        raise ConfigError(f"'{text}' is not arithmetic; allowed: {_ALLOWED}") from None
    expression = Expression(_convert(tree.body, 0))
    unknown = sorted(expression.names - set(names)) if names is not None else []
    if unknown:
        raise ConfigError(f"'{text}' uses the unknown name '{unknown[0]}'; {choices_text(unknown[0], names or ())}")
    return expression


def _convert(node: ast.expr, depth: int) -> Node:
    if depth > MAX_DEPTH:
        raise ConfigError(f"arithmetic is nested deeper than {MAX_DEPTH} levels")
    if isinstance(node, ast.Constant):
        return _number(node.value)
    if isinstance(node, ast.Name):
        return Name(node.id)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
        operand = _convert(node.operand, depth + 1)
        return operand if isinstance(node.op, ast.UAdd) else _negative(operand)
    if isinstance(node, ast.BinOp) and type(node.op) in _BINARY:
        function = _BINARY[type(node.op)]
        left, right = _convert(node.left, depth + 1), _convert(node.right, depth + 1)
        if function == "**" and not (isinstance(right, Number) and abs(right.value) <= MAX_EXPONENT):
            raise ConfigError(f"'**' needs a plain exponent of at most {MAX_EXPONENT}")
        return Operation(function, (left, right))
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.keywords:
        return _call(node.func.id, node.args, depth)
    raise ConfigError(f"'{ast.unparse(node)}' is not allowed in arithmetic; allowed: {_ALLOWED}")


def _negative(operand: Node) -> Node:
    return Number(-operand.value) if isinstance(operand, Number) else Operation("-", (Number(0.0), operand))


def _call(function: str, arguments: list[ast.expr], depth: int) -> Operation:
    if function not in _ARGUMENTS:
        raise ConfigError(f"function '{function}' is not known; {choices_text(function, _ARGUMENTS)}")
    least, most = _ARGUMENTS[function]
    if not least <= len(arguments) <= most:
        span = f"{least}" if least == most else f"{least} to {most}"
        raise ConfigError(f"{function}() takes {span} arguments, found {len(arguments)}")
    return Operation(function, tuple(_convert(argument, depth + 1) for argument in arguments))


def _number(value: object) -> Number:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ConfigError(f"{value!r} is not a number; allowed: {_ALLOWED}")
    if not abs(value) <= MAX_NUMBER:  # also refuses NaN
        raise ConfigError(f"a number in arithmetic must lie within ±{amount_text(MAX_NUMBER)}")
    return Number(float(value))


def _names(node: Node) -> Iterator[str]:
    if isinstance(node, Name):
        yield node.name
    elif isinstance(node, Operation):
        for argument in node.arguments:
            yield from _names(argument)


def _is_finite(node: Node) -> bool:
    """Whether no divisor can be 0 and no base of a fractional power can be negative."""
    if not isinstance(node, Operation):
        return True
    if node.function in ("/", "//", "%") and not _is_above(node.arguments[1], 0.0):
        return False
    if node.function == "**" and not (_is_positive(node.arguments[0]) and _is_above(node.arguments[1], -1e-300)):
        return False
    return all(map(_is_finite, node.arguments))


def _is_positive(node: Node) -> bool:
    """Whether the value is never less than 0."""
    if isinstance(node, Name):
        return True
    if isinstance(node, Number):
        return node.value >= 0.0
    if node.function == "max":
        return any(map(_is_positive, node.arguments))
    if node.function == "%":
        return _is_above(node.arguments[1], 0.0)
    return node.function != "-" and all(map(_is_positive, node.arguments))


def _is_above(node: Node, least: float) -> bool:
    return isinstance(node, Number) and node.value > least


def _bind(node: Node, values: Mapping[str, float]) -> Node:
    if isinstance(node, Name) and node.name in values:
        return Number(float(values[node.name]))
    if isinstance(node, Operation):
        return Operation(node.function, tuple(_bind(argument, values) for argument in node.arguments))
    return node


def _evaluate(node: Node, values: Mapping[str, Num]) -> Num:
    if isinstance(node, Number):
        return np.float64(node.value)
    if isinstance(node, Name):
        return values[node.name]
    with np.errstate(all="ignore"):
        return _FUNCTIONS[node.function](*(np.float64(1.0) * _evaluate(a, values) for a in node.arguments))


def _text(node: Node) -> str:
    if isinstance(node, Number):
        return f"{node.value:.15g}" if node.value >= 0 else f"({node.value:.15g})"
    if isinstance(node, Name):
        return node.name
    arguments = [_text(argument) for argument in node.arguments]
    if node.function in _ARGUMENTS:
        return f"{node.function}({', '.join(arguments)})"
    return f"({f' {node.function} '.join(arguments)})"
