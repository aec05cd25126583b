"""Fits of several devices at once: what stands in for a generation that nobody has measured.

    t = (t_1 · t_2 · … · t_n)^(1/n),   one time from each lender whose fit knows the kernel

Geometric means of times err less than any one lender, keep every bound and order that all lenders keep,
and are no slower to explain: each lender's constants are multiples of the device's own datasheet numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import reduce, wraps
from typing import Any

import numpy as np

from graphsim.cost.surface import Surface
from graphsim.cost.tables import Term
from graphsim.hardware import Hardware
from graphsim.units import Num

LENT = 0.5
"""How much of a correction surface holds on another generation, where several are averaged: with half of it, devices
left out one by one err less than with all or none (`graphsim validate kernels --datasheet` on six devices). A single
lender's surface says too much of its own kernels, and is left out."""

Price = Callable[[Mapping[str, Any], Hardware, Any], Num]
Key = tuple[str, ...]


class Blend(dict[str, Any]):
    """The parameters of several lenders; as a mapping, the geometric means of their constants."""

    def __init__(self, lenders: Sequence[Mapping[str, Any]]) -> None:
        super().__init__(mean_constants(lenders))
        self.lenders = [softened(lender, LENT) for lender in lenders]
        self._bare = [softened(lender, 0.0) for lender in lenders]

    def serving(self, key: Key) -> list[Mapping[str, Any]]:
        """The lenders that have a fit of their own for a kernel, else for one most like it, else all.

        One alone lends no surface.
        """
        known = list(range(len(self.lenders)))
        for length in range(len(key), 0, -1):
            found = [i for i, lender in enumerate(self.lenders) if _holds(lender, key[:length])]
            if found:
                known = found
                break
        return [self.lenders[i] for i in known] if len(known) > 1 else [self._bare[known[0]]]


def blends(key_of: Callable[[Any], Key]) -> Callable[[Price], Price]:
    """Make a family's latency, a function of (parameters, hardware, shape), take a `Blend` for its parameters."""

    def decorate(price: Price) -> Price:
        @wraps(price)
        def latency_s(parameters: Mapping[str, Any], hardware: Hardware, shape: Any) -> Num:
            if not isinstance(parameters, Blend):
                return price(parameters, hardware, shape)
            lenders = parameters.serving(key_of(shape))
            return reduce(np.multiply, [price(one, hardware, shape) ** (1.0 / len(lenders)) for one in lenders])

        return latency_s

    return decorate


def softened(parameters: Any, share: float) -> Any:
    """The same parameters with a share of every surface, or without any."""
    if isinstance(parameters, Mapping):
        return {key: softened(value, share) for key, value in parameters.items() if share or key != "surface"}
    if isinstance(parameters, Surface):
        terms = (Term(axes=term.axes, knots=term.knots, values=share * term.values) for term in parameters.terms)
        return Surface(terms=tuple(terms))
    return parameters


def mean_constants(parameters: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Geometric means of the numbers that stand at the same place; surfaces are left out."""
    found: dict[str, Any] = {}
    for key in dict.fromkeys(key for one in parameters for key in one):
        values = [one[key] for one in parameters if key in one]
        if isinstance(values[0], Mapping):
            found[key] = mean_constants(values)
        elif isinstance(values[0], int | float) and not isinstance(values[0], bool):
            found[key] = float(np.exp(np.mean(np.log(np.maximum(values, 1e-30)))))
    return found


def _holds(parameters: Any, key: Key) -> bool:
    for name in key:
        if not isinstance(parameters, Mapping) or name not in parameters:
            return False
        parameters = parameters[name]
    return True
