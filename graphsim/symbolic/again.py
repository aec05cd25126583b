"""A recorded formula rebuilt from other operands: other symbols, or numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from graphsim.symbolic.expr import Expr, applied, weighted
from graphsim.symbolic.program import needed


def again(formula: Any, variable: Callable[[str], Any]) -> Any:
    """The formula with `variable(name)`, a symbol or a number, for each variable; calls stay calls."""
    if not isinstance(formula, Expr):
        return formula
    known: dict[int, Any] = {}
    for node in needed([formula]):
        operands = [known[x.serial] if isinstance(x, Expr) else x for x in node.operands]
        known[node.serial] = variable(node.name) if node.name else made_of(node, operands)
    return known[formula.serial]


def made_of(node: Expr, operands: Sequence[Any]) -> Any:
    """A formula's last operation applied to other operands."""
    if node.linear is not None:
        constant, terms = node.linear
        return weighted(constant, [(weight, operand) for (_, weight), operand in zip(terms, operands, strict=True)])
    function: Any = node.function
    if hasattr(function, "with_known"):
        function, left = function.with_known([None if isinstance(x, Expr) else x for x in operands])
        operands = [operands[at] for at in left]
    return applied(function, *operands)
