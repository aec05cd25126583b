"""The derivatives of a formula of sums, maxima and minima: the share of each variable in its value.

Max-plus schedules are such formulas: x = sum over variables v of (dx/dv) v, and where a maximum takes one side, only
that side counts. Derivatives from the result back to the variables: reverse accumulation, Griewank and Walther,
"Evaluating Derivatives", 2008, section 3.2.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from graphsim.symbolic.expr import Expr
from graphsim.symbolic.program import needed
from graphsim.symbolic.refusal import NotRecordable

Slopes = dict[int, Any]
"""The derivative of a formula by each node, by serial number."""


def slopes(formula: Any) -> dict[str, Any]:
    """The derivative of a formula by each of its variables: numbers, or formulas for the side that a maximum takes.

    If both sides are equal, the first counts. Raises NotRecordable for a formula of other operations.
    """
    found: Slopes = {formula.serial: 1.0} if isinstance(formula, Expr) else {}
    named: dict[str, Any] = {}
    for node in reversed(needed([formula])):
        slope = found.pop(node.serial, 0.0)
        if node.name:
            named[node.name] = slope
        else:
            _hand_on(node, slope, found)
    return named


def _hand_on(node: Expr, slope: Any, found: Slopes) -> None:
    """Propagate a node's slope to its operands."""
    if node.linear is not None:
        parts = [(x, weight * slope) for x, (_, weight) in zip(node.operands, node.linear[1], strict=True)]
    elif node.function in (np.maximum, np.minimum):
        x, y = node.operands
        first = np.greater_equal(x, y) if node.function is np.maximum else np.less_equal(x, y)
        parts = [(x, np.where(first, slope, 0.0)), (y, np.where(first, 0.0, slope))]
    else:
        raise NotRecordable(f"slopes of {getattr(node.function, '__name__', node.function)}")
    for operand, part in parts:
        if isinstance(operand, Expr):
            found[operand.serial] = found.get(operand.serial, 0.0) + part
