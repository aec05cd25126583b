"""The index that a layer stores: which of its attributes hold it, and which conditions of its code depend on it."""

from __future__ import annotations

import ast
import functools
import inspect
import operator
import re
import textwrap
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import Any

from torch import nn

INDEX_NAME = re.compile(r"^(?!.*shared)(.*_)?((layer|block)_?(idx|id|index|number|num|no)|idx|index)$")
ARITHMETIC: dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
COMPARISONS: dict[type, Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.In: lambda one, many: one in many,
    ast.NotIn: lambda one, many: one not in many,
    ast.Is: operator.is_,
    ast.IsNot: operator.is_not,
}
MANY = 4  # layers in a row whose settings count up by one hold their index


def index_settings(
    positions: Sequence[int], settings: Sequence[Mapping[tuple[str, str], Hashable]]
) -> set[tuple[str, str]]:
    """The settings of a stack's layers that are the layer's index or a factor derived from it.

    An integer is one if its name says so or if it counts up from 0 or 1 over at least four layers; a fraction, if its
    values in at least four layers are all different.
    positions: index of each layer
    settings: settings of each layer, by module and attribute
    """
    columns: dict[tuple[str, str], list[tuple[int, Hashable]]] = {}
    for position, one in zip(positions, settings, strict=True):
        for where, value in one.items():
            columns.setdefault(where, []).append((position, value))
    return {where for where, column in columns.items() if _is_index(where[1], column)}


def _is_index(name: str, column: list[tuple[int, Hashable]]) -> bool:
    values = [value for _, value in column]
    if all(isinstance(value, int) and not isinstance(value, bool) for value in values):
        counted = {int(str(value)) - position for position, value in column}
        return INDEX_NAME.match(name) is not None or (len(values) >= MANY and counted in ({0}, {1}))
    fractions = [value for value in values if isinstance(value, float) and not value.is_integer()]
    return len(values) >= MANY and len(set(fractions)) == len(values)


def answers_about(module: nn.Module, attributes: set[str]) -> Iterator[tuple[str, Hashable]]:
    """The values of the comparisons and remainders in a module's methods that refer to `self.ATTRIBUTE`.

    If an expression depends on more than the module's own attributes, the index itself is its value, so that no two
    layers are of one kind. An index that is only used for a look-up in such an expression, as in a cache, is ignored.
    module: the module
    attributes: names of the attributes that hold the layer's index
    """
    cls: Any = type(module)
    for question in _questions(cls) if attributes else ():
        if not _named(question, into=True) & attributes:
            continue
        try:
            answer = _value(question, module)
        except _Unknown:
            asked = _named(question, into=False) & attributes
            if not asked:
                continue
            answer = tuple(getattr(module, name) for name in sorted(asked))
        yield ast.unparse(question), answer if isinstance(answer, bool | int | float | str) else repr(answer)


def _named(node: ast.AST, into: bool) -> set[str]:
    """The attributes that an expression refers to.

    into: whether those within calls and subscripts count, too
    """
    own = {node.attr} if isinstance(node, ast.Attribute) else set[str]()
    if not into and isinstance(node, ast.Call | ast.Subscript):
        return own
    return own.union(*(_named(child, into) for child in ast.iter_child_nodes(node)))


class _Unknown(Exception):
    """The expression depends on more than a module's attributes and constants."""


def _value(node: ast.expr, module: nn.Module) -> Any:
    """The value of an expression of a module's attributes and constants.

    Raises _Unknown if it depends on anything else.
    """
    match node:
        case ast.Constant(value=value):
            return value
        case ast.Name(id="self"):
            return module
        case ast.List(elts=entries) | ast.Tuple(elts=entries) | ast.Set(elts=entries):
            return [_value(entry, module) for entry in entries]
        case ast.Attribute(value=owner, attr=name) if hasattr(found := _value(owner, module), name):
            return getattr(found, name)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in ARITHMETIC:
            return _applied(ARITHMETIC[type(op)], _value(left, module), _value(right, module))
        case ast.Compare(left=left, ops=[op], comparators=[right]) if type(op) in COMPARISONS:
            return _applied(COMPARISONS[type(op)], _value(left, module), _value(right, module))
        case ast.Subscript(value=owner, slice=at):
            return _applied(operator.getitem, _value(owner, module), _value(at, module))
        case ast.Call(func=ast.Name(id="len"), args=[of]):
            return _applied(lambda one, _: len(one), _value(of, module), None)
    raise _Unknown


def _applied(operation: Callable[[Any, Any], Any], left: Any, right: Any) -> Any:
    try:
        return operation(left, right)
    except (TypeError, ValueError, ArithmeticError, LookupError):
        raise _Unknown from None


@functools.cache
def _questions(cls: type) -> tuple[ast.expr, ...]:
    """Comparisons and remainders in the methods of a class and of its base classes outside PyTorch."""
    found: list[ast.expr] = []
    for part in cls.__mro__:
        if part.__module__.partition(".")[0] in ("torch", "builtins") or not issubclass(part, nn.Module):
            continue
        try:
            tree = ast.parse(textwrap.dedent(inspect.getsource(part)))
        except (OSError, TypeError, SyntaxError):  # no source code, as in an interactive session
            continue
        methods = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name != "__init__"]
        for node in [inner for method in methods for inner in ast.walk(method)]:
            divides = isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mod | ast.FloorDiv)
            if isinstance(node, ast.expr) and (divides or isinstance(node, ast.Compare)):
                found.append(node)
    return tuple(found)
