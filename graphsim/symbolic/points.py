"""Equality of numbers that may be symbols, by their values at a point where every variable is above 1."""

from __future__ import annotations

from typing import Any

import numpy as np

from graphsim.symbolic.expr import Expr
from graphsim.symbolic.program import Program

POINTS = (37.0, 1153.0)
"""Values of the first variable; each further one is larger by an irregular amount, so that formulas do not agree by
chance.
"""


def agree(one: Any, other: Any) -> bool:
    """Whether two numbers, arrays or symbols are equal up to rounding, wherever neither is 0.

    Sound for formulas of sizes, sums of products of powers: these are equal if they agree at a generic point. If a
    share of 0 makes one of two numbers 0, the other one counts.
    """
    if one is other:
        return True
    if not isinstance(one, Expr) and not isinstance(other, Expr):
        first, second = np.broadcast_arrays(one, other)
        told = (first != 0.0) & (second != 0.0)
        return bool(np.all(np.isclose(first, second, rtol=1e-9, atol=0.5) | ~told)) and bool(np.any(told))
    free = sorted({name for value in (one, other) if isinstance(value, Expr) for name in value.free})
    program = Program([one, other])
    for start in POINTS:
        found = program({name: start * (1.0 + 0.317 * i) for i, name in enumerate(free)})
        if not np.isclose(found[0], found[1], rtol=1e-9, atol=0.5):
            return False
    return True
