"""Kernels whose sizes are symbols, as calls of recorded functions: kernels that differ in sizes alone share one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from graphsim.cost.families.elementwise import ElementwiseShape
from graphsim.cost.families.gemm import GemmShape
from graphsim.symbolic.expr import Expr, applied
from graphsim.symbolic.kernel import Kernel, Opaque
from graphsim.symbolic.refusal import CONFUSED, reason
from graphsim.symbolic.substitute import names_of, symbols_in, with_fields
from graphsim.units import Num

SHORT = ElementwiseShape
"""Kernels whose price is a short formula, and becomes part of a step's: a call takes longer than its arithmetic."""

PRODUCT = ("m", "n", "k")
"""What products of one format differ in."""


class RecordedKernels:
    """Seconds of the kernels of one device."""

    def __init__(self, kernel_s: Callable[[Any], Num]) -> None:
        """kernel_s: seconds of a kernel, from its shape"""
        self._kernel_s = kernel_s
        self._kinds: dict[Any, Kernel | Opaque] = {}

    def __call__(self, shape: Any) -> Any:
        """A formula, or the plain number for a shape without symbols."""
        held = {name: getattr(shape, name) for name in names_of(type(shape))}  # type: ignore[arg-type]
        if isinstance(shape, SHORT) or not symbols_in(shape):
            return self._kernel_s(shape)
        sizes = PRODUCT if isinstance(shape, GemmShape) else [n for n, size in held.items() if isinstance(size, Expr)]
        key = (type(shape), *[None if name in sizes else _plain(value) for name, value in held.items()])
        if key not in self._kinds:
            self._kinds[key] = self._kind(shape, sizes)
        return applied(self._kinds[key], *[held[name] for name in sizes])

    def _kind(self, shape: Any, sizes: Sequence[str]) -> Kernel | Opaque:
        def price(*values: Num) -> Num:
            return self._kernel_s(with_fields(shape, dict(zip(sizes, values, strict=True))))

        try:
            return Kernel(sizes, price)
        except CONFUSED as error:
            return Opaque(price, reason(error))


def _plain(value: Any) -> Any:
    """A number that came out of numpy, as one that a key can hold."""
    return value.item() if isinstance(value, np.ndarray | np.generic) else value
