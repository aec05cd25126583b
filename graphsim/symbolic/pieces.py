"""Between which values of its variables a formula is one smooth piece.

Maxima, branches, rounding and tables bend a formula or let it jump. `piece_of` numbers the pieces: at two values with
one number, every such operation takes the same side and every table the same cell.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from graphsim.symbolic.expr import Expr, applied
from graphsim.symbolic.operations import Function
from graphsim.symbolic.program import needed
from graphsim.symbolic.tables import Cell, Interpolation, Way, axis_of

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
    """Which side an operation takes, as a number; None where it has none."""
    if function in _SIDES:
        return _SIDES[function](node)
    if isinstance(function, Cell):
        return node
    if isinstance(function, Way):
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
"""Of each operation that bends or jumps; where a branch goes is told by its condition."""
