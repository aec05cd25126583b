"""The few questions that the library asks of numbers that may be symbols, and why their answers are sound.

A symbol stands for any number from zero up, so an answer that shapes a graph has to hold for all of them. The caller
says so by one of these functions; numpy's own (any, all, max, array_equal) refuse a symbol.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from graphsim.symbolic.expr import Expr


def may_be_nonzero(value: Any) -> bool:
    """Whether a number, or any of an array, is not zero. Of a symbol: True.

    Sound where the answer only saves work: what follows has to be right at zero too.
    """
    return True if isinstance(value, Expr) else bool(np.any(value))


def may_be_zero(value: Any) -> bool:
    """Whether a number, or any of an array, is zero. Of a symbol: True.

    Sound where the answer only saves work: what follows has to be right at other numbers too.
    """
    return True if isinstance(value, Expr) else not np.all(value)


def is_known(value: Any) -> bool:
    """Whether a number is there, not a symbol.

    Sound where a check of actual numbers is left out at a symbol, since it was made when the numbers were given.
    """
    return not isinstance(value, Expr)


def most(value: Any) -> float:
    """The largest of a number or array. Of a symbol: infinity.

    Sound where it is an upper bound: as many parts as there may ever be are laid out, and some may turn out empty.
    """
    return float("inf") if isinstance(value, Expr) else float(np.max(value))


def alike(one: Any, other: Any) -> bool:
    """Whether two numbers or arrays are equal. Of symbols: whether they are the same formula.

    Sound where equal things may be handled once: two formulas that turn out equal are handled twice, with one result.
    """
    if isinstance(one, Expr) or isinstance(other, Expr):
        return one is other
    return bool(np.array_equal(one, other))
