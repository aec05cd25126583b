"""Whether a formula is piecewise linear in a variable."""

from __future__ import annotations

from typing import Any

import numpy as np

from graphsim.symbolic.expr import Expr
from graphsim.symbolic.program import needed
from graphsim.symbolic.tables import Cell

_LEVEL = frozenset(
    {np.less, np.less_equal, np.greater, np.greater_equal, np.equal, np.not_equal, np.logical_and, np.logical_or}
    | {np.ceil, np.floor, np.floor_divide}
)
"""Functions that are piecewise constant."""

_SIDES = frozenset({np.maximum, np.minimum, np.absolute, np.mod})
"""Functions that are piecewise equal to an operand, up to a constant."""


def is_linear(formula: Any, variable: str) -> bool:
    """Whether each piece of a formula is known to be linear in a variable."""
    degree: dict[int, int] = {}
    for node in needed([formula]):
        degree[node.serial] = _degree(node, [degree[x.serial] if isinstance(x, Expr) else 0 for x in node.operands],
                                      variable)  # fmt: skip
    return not isinstance(formula, Expr) or degree[formula.serial] <= 1


_CURVED = 2


def _degree(node: Expr, operands: list[int], variable: str) -> int:
    """0 for a constant, 1 for a line, 2 for anything else."""
    function: Any = node.function
    if variable not in node.free or function in _LEVEL or isinstance(function, Cell):
        return 0
    if node.name or node.linear is not None or function in _SIDES or function in (np.add, np.subtract):
        return max(operands, default=1)
    if function is np.where:
        return max(operands[1:])
    if function is np.multiply:
        return min(sum(operands), _CURVED)
    if function is np.true_divide and operands[1] == 0:
        return operands[0]
    return _CURVED
