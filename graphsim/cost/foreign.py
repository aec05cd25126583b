"""Pricing operations of graphs from outside: a finite time each, or a sentence why it has none."""

from __future__ import annotations

import numpy as np

from graphsim.cost.base import Cost, CostModel
from graphsim.cost.users import UsersCost
from graphsim.errors import GraphError, GraphsimError
from graphsim.graph.sound import WRONG
from graphsim.hardware import Hardware
from graphsim.ops import Op
from graphsim.units import short


def priced_or_refused(cost: CostModel) -> CostModel:
    """The cost model, which raises GraphError for operations without a finite time.

    A user's own function is checked separately, and its exceptions are passed through.
    """
    if isinstance(cost, UsersCost):
        return cost

    def price(op: Op, hardware: Hardware) -> Cost:
        try:
            with np.errstate(all="ignore"):
                found = cost(op, hardware)
                finite = bool(np.all(np.isfinite(found.latency_s)) and np.all(np.greater_equal(found.latency_s, 0.0)))
        except GraphsimError:
            raise
        except WRONG as error:
            raise GraphError(f"a {type(op).__name__} of these dimensions has no price: {short(str(error))}") from None
        if not finite:
            raise GraphError(f"a {type(op).__name__} of these dimensions takes {short(found.latency_s)} s")
        return found

    return price
