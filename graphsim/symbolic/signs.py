"""The sign of a formula that is known before its numbers."""

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
    """Whether function(operands) is known to be at least zero; without a function it is a variable or a sum.

    operands: formulas, which know their own sign, or plain numbers
    linear: a sum's constant and coefficients.
    Tables and calls state it themselves (`never_negative`).
    """
    if linear is not None:
        constant, terms = linear
        return constant >= 0 and all(c > 0 for _, c in terms) and all(map(_is_at_least_zero, operands))
    if function is None or function in NEVER_BELOW_ZERO:
        return True
    if function is np.maximum:
        return any(map(_is_at_least_zero, operands))
    if function is np.where:
        return all(map(_is_at_least_zero, operands[1:]))
    if function in KEEP_SIGN:
        return all(map(_is_at_least_zero, operands))
    return bool(getattr(function, "never_negative", False))


def _is_at_least_zero(operand: Any) -> bool:
    positive = getattr(operand, "positive", None)
    return bool(operand >= 0) if positive is None else positive
