"""A number for what a formula computes, the same in every process and in whatever order formulas were recorded.

Devices of an architecture share a tape, so the serial numbers of its nodes depend on which of them was asked about
first, and on other threads. Terms of sums are added in the order of their contents instead: the same question gives
the same digits, whatever was asked before.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from zlib import crc32

import numpy as np

from graphsim.symbolic.expr import Expr
from graphsim.symbolic.memo import Memo

_COMMUTATIVE = frozenset({np.multiply, np.add, np.maximum, np.minimum, np.logical_and, np.logical_or})

_functions: Memo[int] = Memo(most=2048)
"""Contents of functions that hold tables or formulas of their own."""


def content_of(formula: Expr) -> int:
    """The number of a formula."""
    todo = [formula]
    while todo:
        node = todo[-1]
        if node.content is not None:
            todo.pop()
            continue
        below = [x for x in node.operands if type(x) is Expr and x.content is None]
        todo += below
        if not below:
            node.content = _content(node)
    return int(formula.content or 0)


def in_order(node: Expr) -> list[int]:
    """The positions of a sum's terms, in the order in which they are added; two numbers alone add up to the same in
    either order.
    """
    constant, terms = node.linear or (0.0, ())
    numbers = len(terms) + (constant != 0.0)
    if numbers <= 2:
        return list(range(len(terms)))
    return sorted(range(len(terms)), key=lambda at: (content_of(node.operands[at]), terms[at][1]))


def _content(node: Expr) -> int:
    if node.name:
        return crc32(node.name.encode())
    if node.linear is not None:
        constant, terms = node.linear
        weighed = zip((x.content for x in node.operands), (weight for _, weight in terms), strict=True)
        return hash((constant, *sorted(weighed)))
    parts = [x.content if type(x) is Expr else hash(x) for x in node.operands]
    if node.function in _COMMUTATIVE:
        parts.sort()
    return hash((_of_function(node.function), *parts))


def _of_function(function: Any) -> int:
    name = getattr(function, "__name__", "")
    if name:
        return crc32(name.encode())
    return _functions.get((function,), lambda: hash((crc32(type(function).__name__.encode()), *_data(function))))


def _data(function: Any) -> list[int]:
    """What a function holds: a bound one its values, a kernel its formula, a look-up its table."""
    bound: Callable[..., Any] | None = getattr(function, "_of", None)
    if bound is not None:
        return [_of_function(bound), *map(hash, function._values.values())]
    if hasattr(function, "result"):
        arguments = crc32(",".join(function.arguments).encode())
        return [arguments, content_of(function.result) if type(function.result) is Expr else hash(function.result)]
    tables = (getattr(function, "values", None), getattr(function, "knots", None), getattr(function, "axis", None))
    return [crc32(getattr(table, "knots", table).tobytes()) for table in tables if table is not None]
