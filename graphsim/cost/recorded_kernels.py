"""Kernels whose sizes are symbols, as calls of recorded functions: kernels that differ only in sizes share one.

So do devices that differ only in rates: a function is recorded once, of sizes and rates, and of its family's fitted
constants where these are symbols.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from graphsim.cost.constants import PREFIX
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
"""Kernels whose price is a short formula that is inlined in a step's, since a call takes longer than its arithmetic."""

PRODUCT = ("m", "n", "k")
"""Fields in which GEMMs of one format differ."""

KernelTime = Callable[..., Num]
"""Seconds of a kernel on a device, from its shape, and from other values of fitted constants where there are any."""

Kinds = dict[Any, Kernel | Opaque]
"""Recorded functions by kind of kernel of one family, for devices that differ in rates alone."""


class RecordedKernels:
    """Seconds of the kernels of one device, whose rates may be symbols.

    kinds: the recorded functions of each family
    constants: fitted constants that are symbols, by name
    """

    def __init__(
        self,
        hardware: Hardware,
        kernel_s: KernelTime,
        kinds: Mapping[str, Kinds],
        constants: Mapping[str, Expr] = MappingProxyType({}),
    ) -> None:
        self._hardware, self._kernel_s, self._kinds = hardware, kernel_s, kinds
        self._rates, self._constants = rates_of(hardware), constants
        self._of_symbols = bool(constants) or any(isinstance(rate, Expr) for rate in self._rates.values())

    def __call__(self, shape: Any) -> Any:
        """A formula, or the plain number for a shape without symbols on a device without any."""
        if isinstance(shape, SHORT) or not (self._of_symbols or symbols_in(shape)):
            return self._kernel_s(self._hardware, shape)
        held = {name: getattr(shape, name) for name in names_of(type(shape))}  # type: ignore[arg-type]
        sizes = PRODUCT if isinstance(shape, GemmShape) else [n for n, size in held.items() if isinstance(size, Expr)]
        key = (type(shape), *[None if name in sizes else _plain(value) for name, value in held.items()])
        kinds = self._kinds[shape.family]
        if key not in kinds:
            kinds[key] = self._kind(shape, sizes)
        kernel, at = kinds[key], [held[name] for name in sizes]
        if isinstance(kernel, Opaque):
            return applied(kernel, *at, *self._rates.values(), *self._fitted(shape.family).values())
        given = {**self._rates, **self._constants}
        return called(kernel, at, [given[name] for name in kernel.rates])

    def _fitted(self, family: str) -> dict[str, Expr]:
        """The constants of one family that are symbols."""
        return {name: value for name, value in self._constants.items() if name.startswith(f"{PREFIX}.{family}.")}

    def _kind(self, shape: Any, sizes: Sequence[str]) -> Kernel | Opaque:
        hardware, rates, constants = self._hardware, tuple(self._rates), tuple(self._fitted(shape.family))

        def price(*values: Num) -> Num:
            given = dict(zip((*sizes, *rates, *constants), values, strict=True))
            device = with_rates(hardware, {name: given[name] for name in rates})
            sized = with_fields(shape, {name: given[name] for name in sizes})
            return self._kernel_s(device, sized, {name: given[name] for name in constants})

        try:
            return Kernel(sizes, price, rates=(*rates, *constants))
        except CONFUSED as error:
            return Opaque(price, reason(error))


def _plain(value: Any) -> Any:
    """A numpy number as a plain one for use in a key."""
    return value.item() if isinstance(value, np.ndarray | np.generic) else value
