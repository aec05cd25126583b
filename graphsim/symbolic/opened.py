"""A formula with calls of recorded functions inlined, so that all its kinks are visible."""

from __future__ import annotations

from typing import Any

from graphsim.symbolic.again import made_of
from graphsim.symbolic.expr import Expr, Tape
from graphsim.symbolic.kernel import Kernel
from graphsim.symbolic.program import needed


def opened(formula: Expr, variable: str, tape: Tape) -> Any:
    """The same formula on another tape; calls at sizes that depend on the variable are written out there."""
    known: dict[int, Any] = {}
    for node in needed([formula]):
        known[node.serial] = tape.variable(node.name) if node.name else _made_again(node, known, variable)
    return known[formula.serial]


def level_in(formula: Any, variable: str) -> list[Expr]:
    """The operands that do not depend on a variable of formulas that do."""
    found: dict[int, Expr] = {}
    for node in needed([formula]):
        if variable in node.free:
            found |= {x.serial: x for x in node.operands if isinstance(x, Expr) and variable not in x.free}
    return list(found.values())


def _made_again(node: Expr, known: dict[int, Any], variable: str) -> Any:
    """An operation rebuilt on its replaced operands."""
    operands = [known[x.serial] if isinstance(x, Expr) else x for x in node.operands]
    if isinstance(node.function, Kernel) and any(isinstance(x, Expr) and variable in x.free for x in operands):
        return _written_out(node.function, operands, variable)
    return made_of(node, operands)


def _written_out(kernel: Kernel, operands: list[Any], variable: str) -> Any:
    arguments = dict(zip(kernel.arguments, operands, strict=True))
    known: dict[int, Any] = {}
    for node in needed([kernel.result]):
        known[node.serial] = arguments[node.name] if node.name else _made_again(node, known, variable)
    return known[kernel.result.serial] if isinstance(kernel.result, Expr) else kernel.result
