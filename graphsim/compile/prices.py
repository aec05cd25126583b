"""Prices of operations whose numbers are symbols: formulas, of calls where a price needs the actual numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from graphsim.compile.calls import Batched, Remembering, timed_together
from graphsim.cost.base import Cost, CostModel
from graphsim.cost.calibrated import Prices
from graphsim.cost.families.elementwise import ElementwiseShape
from graphsim.cost.families.gemm import GemmShape
from graphsim.errors import GraphsimError
from graphsim.hardware import Hardware
from graphsim.ops import Op
from graphsim.symbolic.duration import Duration
from graphsim.symbolic.expr import Expr, Tape
from graphsim.symbolic.refusal import CONFUSED
from graphsim.symbolic.substitute import filler, names_of, symbols_in, with_fields
from graphsim.units import Num


class _Recorded(Cost):
    """A price of which only the latency is asked."""

    @property
    def bound(self) -> str:
        """Not known before the numbers are."""
        return ""


def price_formulas(price: CostModel, tape: Tape) -> CostModel:
    """Prices that are formulas of the operation's symbols, or calls where the cost model needs their numbers."""
    latency_s = _formulas(price, tape)

    def formula_or_call(op: Op, hardware: Hardware) -> Cost:
        symbols = symbols_in(op)
        if not symbols:
            return price(op, hardware)
        latency: Any
        try:
            latency = latency_s(op, hardware)
        except GraphsimError:
            raise
        except CONFUSED:
            call = Remembering(_numbers_s(price, op, hardware), recordable=len(symbols), asks=True)
            latency = tape.apply(Duration(call), *symbols)
        return _Recorded(busy_s=latency)

    return formula_or_call


def _formulas(price: CostModel, tape: Tape) -> Callable[[Op, Hardware], Any]:
    """An operation's latency as a formula; a calibrated cost model's is one of calls of its kernels."""
    if not isinstance(price, Prices):
        return lambda op, hardware: price(op, hardware).latency_s
    kernel_s = KernelCalls(price.kernel_s, tape)
    return lambda op, _: price.latency_s(op, kernel_s)


def _numbers_s(price: CostModel, op: Op, hardware: Hardware) -> Callable[..., Num]:
    """The latency of an operation as a function of the values of its symbols."""
    filled = filler(op)
    return lambda *values: price(filled(iter(values)), hardware).latency_s


class KernelCalls:
    """Seconds of kernels whose sizes are symbols, as calls on a tape: kernels that differ in sizes alone share one.

    Short prices become part of the formula instead.
    """

    def __init__(self, kernel_s: Callable[[Any], Num], tape: Tape) -> None:
        self._kernel_s, self._tape = kernel_s, tape
        self._kinds: dict[Any, Duration] = {}

    def __call__(self, shape: Any) -> Any:
        """A formula, or the plain number for a shape without symbols."""
        held = {name: getattr(shape, name) for name in names_of(type(shape))}  # type: ignore[arg-type]
        if isinstance(shape, SHORT) or not symbols_in(shape):
            return self._kernel_s(shape)
        sizes = PRODUCT if isinstance(shape, GemmShape) else [n for n, size in held.items() if isinstance(size, Expr)]
        key = (type(shape), *[None if name in sizes else value for name, value in held.items()])
        if key not in self._kinds:
            self._kinds[key] = self._kind(shape, sizes)
        return self._tape.apply(self._kinds[key], *[held[name] for name in sizes])

    def _kind(self, shape: Any, sizes: Sequence[str]) -> Duration:
        def price(*values: Num) -> Num:
            return self._kernel_s(with_fields(shape, dict(zip(sizes, values, strict=True))))

        count = len(sizes)
        if isinstance(shape, GemmShape):
            return Duration(Batched(price, recordable=count), timed_together)
        return Duration(Remembering(price, recordable=count), timed_together)


SHORT = ElementwiseShape
"""Kernels whose price is a short formula, and is recorded as such: a call takes longer than its arithmetic."""

PRODUCT = ("m", "n", "k")
"""What products of one format differ in: all that are new are priced in one go."""
