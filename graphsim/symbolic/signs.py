"""What is known of a formula's sign before its numbers are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

NEVER_BELOW_ZERO = frozenset(
    {np.exp, np.absolute, np.less, np.less_equal, np.greater, np.greater_equal, np.equal, np.not_equal}
    | {np.logical_and, np.logical_or}
)
KEEP_SIGN = frozenset({np.multiply, np.true_divide, np.minimum, np.ceil, np.floor, np.sqrt, np.power, np.mod})


def is_positive(function: Callable[..., Any] | None, operands: Sequence[Any], linear: Any = None) -> bool:
    """Whether function(operands) is known to be at least zero; no function stands for a variable, or a sum.

    operands: formulas, which know their own sign, or plain numbers; linear: a sum's constant and coefficients.
    Tables and calls say of themselves whether they are (`never_negative`).
    """
    known = [getattr(operand, "positive", None) or _is_number_above(operand) for operand in operands]
    if linear is not None:
        constant, terms = linear
        return constant >= 0 and all(coefficient > 0 for _, coefficient in terms) and all(known)
    if function is None:
        return True
    if function is np.maximum:
        return any(known)
    if function is np.where:
        return all(known[1:])
    if function in NEVER_BELOW_ZERO or (function in KEEP_SIGN and all(known)):
        return True
    return bool(getattr(function, "never_negative", False))


def _is_number_above(operand: Any) -> bool:
    return not hasattr(operand, "positive") and bool(operand >= 0)
