"""Kernels whose sizes are symbols, as calls of recorded functions: kernels that differ in sizes alone share one.

So do devices that differ in rates alone: a function is recorded once, of sizes and rates.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from graphsim.cost.families.elementwise import ElementwiseShape
from graphsim.cost.families.gemm import GemmShape
from graphsim.cost.rates import rates_of, with_rates
from graphsim.hardware import Hardware
from graphsim.symbolic.expr import Expr, applied
from graphsim.symbolic.kernel import Kernel, Opaque, called
from graphsim.symbolic.refusal import CONFUSED, reason
from graphsim.symbolic.substitute import names_of, symbols_in, with_fields
from graphsim.units import Num

SHORT = ElementwiseShape
"""Kernels whose price is a short formula, and becomes part of a step's: a call takes longer than its arithmetic."""

PRODUCT = ("m", "n", "k")
"""What GEMMs of one format differ in."""

KernelTime = Callable[[Hardware, Any], Num]
"""Seconds of a kernel on a device, from its shape."""

Kinds = dict[Any, Kernel | Opaque]
"""Recorded functions by kind of kernel, for devices that differ in rates alone."""


class RecordedKernels:
    """Seconds of the kernels of one device, whose rates may be symbols."""

    def __init__(self, hardware: Hardware, kernel_s: KernelTime, kinds: Kinds) -> None:
        self._hardware, self._kernel_s, self._kinds = hardware, kernel_s, kinds
        self._rates = rates_of(hardware)
        self._of_symbols = any(isinstance(rate, Expr) for rate in self._rates.values())

    def __call__(self, shape: Any) -> Any:
        """A formula, or the plain number for a shape without symbols on a device without any."""
        if isinstance(shape, SHORT) or not (self._of_symbols or symbols_in(shape)):
            return self._kernel_s(self._hardware, shape)
        held = {name: getattr(shape, name) for name in names_of(type(shape))}  # type: ignore[arg-type]
        sizes = PRODUCT if isinstance(shape, GemmShape) else [n for n, size in held.items() if isinstance(size, Expr)]
        key = (type(shape), *[None if name in sizes else _plain(value) for name, value in held.items()])
        if key not in self._kinds:
            self._kinds[key] = self._kind(shape, sizes)
        kernel, at = self._kinds[key], [held[name] for name in sizes]
        if isinstance(kernel, Opaque):
            return applied(kernel, *at, *self._rates.values())
        return called(kernel, at, [self._rates[name] for name in kernel.rates])

    def _kind(self, shape: Any, sizes: Sequence[str]) -> Kernel | Opaque:
        hardware, count, rates = self._hardware, len(sizes), tuple(self._rates)

        def price(*values: Num) -> Num:
            device = with_rates(hardware, dict(zip(rates, values[count:], strict=True)))
            return self._kernel_s(device, with_fields(shape, dict(zip(sizes, values[:count], strict=True))))

        try:
            return Kernel(sizes, price, rates=rates)
        except CONFUSED as error:
            return Opaque(price, reason(error))


def _plain(value: Any) -> Any:
    """A number that came out of numpy, as one that a key can hold."""
    return value.item() if isinstance(value, np.ndarray | np.generic) else value
