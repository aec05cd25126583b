"""The smooth pieces of a formula.

Maxima, branches, rounding and tables cause kinks or jumps. `piece_of` numbers the
pieces: two values have the same number if every such operation takes the same side and every table the same cell.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from graphsim.symbolic.expr import Expr, applied
from graphsim.symbolic.operations import Function
from graphsim.symbolic.program import needed
from graphsim.symbolic.tables import Cell, Interpolation, Position, axis_of

_GOLDEN = (math.sqrt(5.0) - 1.0) / 2.0


def piece_of(formula: Expr, variable: str) -> Any:
    """A number for each piece along a variable, as a formula; 0 for a formula of one piece."""
    total: Any = 0.0
    for at, node in enumerate(needed([formula])):
        if variable not in node.free or node.name or node.linear is not None:
            continue
        side = _side(node.function, node)
        if isinstance(side, Expr) and variable in side.free:
            total = total + (1.0 + math.fmod(at * _GOLDEN, 1.0)) * side
    return total


def _side(function: Function | None, node: Expr) -> Any:
    """The side that an operation takes, as a number; None if it has no sides."""
    if function in _SIDES:
        return _SIDES[function](node)
    if isinstance(function, Cell):
        return node
    if isinstance(function, Position):
        x, knots = node.operands[0], function.axis.knots_list
        return np.less(x, knots[0]) + 2.0 * np.greater(x, knots[-1])
    if isinstance(function, Interpolation):
        return applied(axis_of(function.knots).cell, node.operands[0]) if len(function.knots) > 1 else None
    return None


_SIDES: dict[Any, Callable[[Expr], Any]] = {
    **dict.fromkeys((np.maximum, np.minimum), lambda node: np.less(*node.operands)),
    **dict.fromkeys(
        (
            np.ceil,
            np.floor,
            np.floor_divide,
            np.less,
            np.less_equal,
            np.greater,
            np.greater_equal,
            np.equal,
            np.not_equal,
        ),
        lambda node: node,
    ),
    np.absolute: lambda node: np.less(node.operands[0], 0.0),
    np.mod: lambda node: np.floor_divide(*node.operands),
}
"""The side functions of operations with kinks or jumps; a branch is covered by its condition."""
