"""An order of formulas independent of the order of recording, so that similar formulas are printed alike.

Two formulas have the same shape if they differ only in numbers, tables and the order of terms. Terms, and the factors
of a product or a maximum, are sorted by their top-level appearance, so that differences deep within one do not affect
the order, and then by their shapes; numbers come first.
"""

from __future__ import annotations

from collections.abc import Container, Iterable
from typing import Any

import numpy as np

from graphsim.symbolic.expr import Expr
from graphsim.symbolic.kernel import Kernel
from graphsim.symbolic.operations import OPERATIONS
from graphsim.symbolic.tables import Table

_EITHER_WAY = frozenset({np.multiply, np.add, np.maximum, np.minimum, np.logical_and, np.logical_or})
"""Commutative operations."""

_NUMBER = -1

_DEPTH = 3
"""Depth of the operations that determine its appearance."""


class Shapes:
    """Numbers of shapes, in the order in which they are first seen."""

    def __init__(self) -> None:
        self._numbers: dict[Any, int] = {}
        self._known: dict[int, tuple[Expr, int]] = {}
        self._looked: dict[tuple[int, int], str] = {}

    def ordered(self, results: Iterable[Any], given: Container[int] = ()) -> list[Expr]:
        """All formulas that the results depend on, operands first, in the order in which they are needed.

        given: serial numbers of known formulas, whose own dependencies are not needed
        """
        found: dict[int, Expr] = {}
        todo = [(result, False) for result in reversed(list(results)) if isinstance(result, Expr)]
        while todo:
            node, ready = todo.pop()
            if node.serial in found or node.serial in given:
                continue
            if ready:
                found[node.serial] = node
                continue
            todo.append((node, True))
            operands = [operand for operand, _ in self.operands(node)]
            todo += [(operand, False) for operand in reversed(operands) if isinstance(operand, Expr)]
        return list(found.values())

    def operands(self, node: Expr) -> list[tuple[Any, float]]:
        """The operands of an operation, in order, each with its weight in a sum."""
        weights = [weight for _, weight in node.linear[1]] if node.linear is not None else [1.0] * len(node.operands)
        pairs = list(zip(node.operands, weights, strict=True))
        if node.linear is not None or node.function in _EITHER_WAY:
            pairs.sort(key=lambda pair: (self._looks(pair[0], _DEPTH), self.of(pair[0])))
        return pairs

    def of(self, operand: Any) -> int:
        """The number of an operand's shape."""
        if not isinstance(operand, Expr):
            return _NUMBER
        todo = [operand]
        while todo:
            node = todo[-1]
            below = [x for x in node.operands if isinstance(x, Expr) and id(x) not in self._known]
            if below:
                todo += below
                continue
            todo.pop()
            self._known[id(node)] = node, self._number(node)
        return self._known[id(operand)][1]

    def _looks(self, operand: Any, depth: int) -> str:
        """An operand down to a depth, as a text."""
        if not isinstance(operand, Expr):
            return ""
        key = id(operand), depth
        if key not in self._looked:
            function: Any = operand.function
            name = operand.name or getattr(function, "__name__", type(function).__name__)
            below = [self._looks(x, depth - 1) for x in operand.operands] if depth else []
            if operand.linear is not None or function in _EITHER_WAY:
                below.sort()
            self._looked[key] = f"{name}({','.join(below)})"
        return self._looked[key]

    def _number(self, node: Expr) -> int:
        shapes = [self._known[id(x)][1] if isinstance(x, Expr) else _NUMBER for x in node.operands]
        if node.linear is not None or node.function in _EITHER_WAY:
            shapes.sort()
        return self._numbers.setdefault((node.name, self._function(node), *shapes), len(self._numbers))

    def _function(self, node: Expr) -> Any:
        """The part of an operation that distinguishes its shape."""
        function: Any = node.function
        if isinstance(function, Kernel):
            return "kernel", function.arguments
        if isinstance(function, Table):
            return "table", tuple(function.strides)
        return function if function in OPERATIONS else type(function)
