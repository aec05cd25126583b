"""Whether there is any work: 0 or 1, as a formula that depends only on ranks where possible.

No micro-batch is empty, so its size does not matter. A rank may be 0, in one scenario of many.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from graphsim.symbolic.expr import Expr
from graphsim.symbolic.program import Program
from graphsim.units import Num

SIZES = ("batch", "seq_len", "squares")
"""Variables of a micro-batch."""

SHARE = "share"
"""The variable for the part of the trained weights that a device updates."""

SOME: Mapping[str, float] = {"batch": 64.0, "seq_len": 4096.0, "squares": 64.0 * 4096.0**2, SHARE: 1.0}
"""Variables that are never 0, and the values at which an amount is evaluated."""


def there(amount: Num) -> Num:
    """1 if an amount of bytes, elements or rows is not 0.

    For a formula with one further variable that decides this, whether that variable is not 0.
    """
    if not isinstance(amount, Expr):
        return np.minimum(amount, 1.0)
    others = sorted(amount.free - SOME.keys())
    if len(others) > 1:
        return np.minimum(amount, 1.0)
    program = Program([amount])
    without, one = (min(float(program({**SOME, **dict.fromkeys(others, rank)})[0]), 1.0) for rank in (0.0, 1.0))
    if without == one:
        return one
    whether: Num = np.minimum(np.ceil(amount.tape.variable(others[0])), 1.0)
    return whether if (without, one) == (0.0, 1.0) else np.minimum(amount, 1.0)
