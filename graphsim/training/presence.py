"""Whether there is anything to do: a number, 0 or 1, that of a formula depends on ranks alone wherever it can.

No micro-batch is empty, so that its size does not decide it. A rank may be 0, in one scenario of many.
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
"""Variables that are never 0, and values at which an amount is asked for."""


def there(amount: Num) -> Num:
    """1 where an amount of bytes, elements or rows is not 0.

    Of a formula of one further variable, which makes it 0 or does not: whether that one is there.
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
