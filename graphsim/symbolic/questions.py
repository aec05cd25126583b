"""The queries that the library makes of numbers that may be symbols, and why their answers are sound.

A symbol stands for any number of at least zero, so an answer that determines a graph has to hold for all of them.
Callers use one of these functions; numpy's own (any, all, max, array_equal) refuse a symbol.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from graphsim.symbolic.expr import Expr


def may_be_nonzero(value: Any) -> bool:
    """Whether a number, or any of an array, is not zero. Of a symbol: True.

    Sound if the answer only saves work: the following code must also be correct at zero.
    """
    if isinstance(value, float | int):
        return bool(value != 0)
    return True if isinstance(value, Expr) else bool(np.any(value))


def may_be_zero(value: Any) -> bool:
    """Whether a number, or any of an array, is zero. Of a symbol: True.

    Sound if the answer only saves work: the following code must also be correct at other numbers.
    """
    if isinstance(value, float | int):
        return bool(value == 0)
    return True if isinstance(value, Expr) else not np.all(value)


def is_known(value: Any) -> bool:
    """Whether a value is an actual number rather than a symbol.

    Sound if a check of actual numbers is skipped for a symbol, since it was made when the numbers were given.
    """
    return not isinstance(value, Expr)


def most(value: Any) -> float:
    """The largest of a number or array. Of a symbol: infinity.

    Sound as an upper bound: the largest possible number of parts is created, some of which may be empty.
    """
    return float("inf") if isinstance(value, Expr) else float(np.max(value))


def alike(one: Any, other: Any) -> bool:
    """Whether two numbers or arrays are equal. Of symbols: whether they are the same formula.

    Sound if equal items may be handled once: two different formulas with equal values are handled twice, with the same
    result.
    """
    if isinstance(one, Expr) or isinstance(other, Expr):
        return one is other
    return bool(np.array_equal(one, other))
