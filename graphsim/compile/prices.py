"""Prices of operations whose numbers are symbols: formulas, of calls where a price needs the actual numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from graphsim.compile.calls import Batched, Remembering, agrees, timed_together
from graphsim.cost.base import Cost, CostModel, Trusted
from graphsim.cost.calibrated import Prices
from graphsim.cost.families.elementwise import ElementwiseShape
from graphsim.cost.families.gemm import GemmShape
from graphsim.cost.users import UsersCost
from graphsim.errors import GraphsimError
from graphsim.hardware import Hardware
from graphsim.ops import Op
from graphsim.symbolic.duration import Duration
from graphsim.symbolic.expr import Expr, Tape
from graphsim.symbolic.program import Program
from graphsim.symbolic.refusal import CONFUSED
from graphsim.symbolic.substitute import filler, names_of, symbols_in, with_fields
from graphsim.units import Num


class _Recorded(Cost):
    """A price of which only the latency is asked."""

    @property
    def bound(self) -> str:
        """Not known before the numbers are."""
        return ""


Point = Mapping[str, float]
"""Values of all variables of a tape."""


def price_formulas(price: CostModel, tape: Tape, points: Sequence[Point]) -> CostModel:
    """Prices that are formulas of the operation's symbols, or calls where the cost model needs their numbers.

    points: where the formulas of a user's cost function have to give what the function gives
    """
    return _OfUsers(price, tape, points) if isinstance(price, UsersCost) else _OfOwn(price, tape)


class _OfOwn(Trusted):
    """Formulas and calls of the library's cost models."""

    def __init__(self, price: CostModel, tape: Tape) -> None:
        self._price, self._tape = price, tape
        self._latency_s = _formulas(price, tape)

    def __call__(self, op: Op, hardware: Hardware) -> Cost:
        symbols = symbols_in(op)
        if not symbols:
            return self._price(op, hardware)
        latency: Any
        try:
            latency = self._latency_s(op, hardware)
        except GraphsimError:
            raise
        except CONFUSED:
            call = Remembering(_numbers_s(self._price, op, hardware), recordable=len(symbols), asks=True)
            latency = self._tape.apply(Duration(call), *symbols)
        return _Recorded(busy_s=latency)


class _OfUsers(Trusted):
    """Formulas of a user's cost function that are proved at some points, and calls where there are none.

    A function may take no notice of a symbol: it may swallow the refusal, or ask for the type of a size.
    """

    def __init__(self, price: UsersCost, tape: Tape, points: Sequence[Point]) -> None:
        self._price, self._tape, self._points = price, tape, points

    def __call__(self, op: Op, hardware: Hardware) -> Cost:
        symbols = symbols_in(op)
        if not symbols:
            return self._price(op, hardware)
        numbers_s = _numbers_s(self._price, op, hardware)
        before, self._tape.refused = self._tape.refused, ""
        try:
            latency = self._formula(op, hardware, symbols, numbers_s)
        finally:
            self._tape.refused = before
        if latency is None:
            call = Remembering(numbers_s, recordable=len(symbols), asks=True, proofs=self._proofs(symbols))
            latency = self._tape.apply(Duration(call), *symbols)
        return _Recorded(busy_s=latency)

    def _formula(self, op: Op, hardware: Hardware, symbols: Sequence[Expr], numbers_s: Callable[..., Num]) -> Any:
        """The latency as a formula that is checked at every value; None where it is not what the function gives."""
        try:
            latency: Any = self._price(op, hardware).latency_s
        except GraphsimError:
            numbers_s(*self._proofs(symbols)[0])  # raises what the function raises at numbers
            return None
        except CONFUSED:
            return None
        if self._tape.refused:
            return None
        recorded = Program([latency, *symbols])
        values = (recorded(point) for point in self._points)
        if not agrees(numbers_s, ((found[0], tuple(found[1:])) for found in values)):
            return None
        return self._tape.apply(Duration(_Checked(self._price, op)), latency) if isinstance(latency, Expr) else latency

    def _proofs(self, symbols: Sequence[Expr]) -> list[tuple[float, ...]]:
        """The sizes of an operation at the points."""
        sizes = Program(symbols)
        return [tuple(map(float, sizes(point))) for point in self._points]


class _Checked:
    """The value of a formula of a user's cost function, which has to be a time like any price."""

    def __init__(self, price: UsersCost, op: Op) -> None:
        self._price, self._op = price, op

    def __call__(self, seconds: Num) -> Num:
        self._price.check(seconds, "latency_s", self._op)
        return seconds


def _formulas(price: CostModel, tape: Tape) -> Callable[[Op, Hardware], Any]:
    """An operation's latency as a formula; a calibrated cost model's is one of calls of its kernels."""
    if not isinstance(price, Prices):
        return lambda op, hardware: price(op, hardware).latency_s
    kernel_s = KernelCalls(price.kernel_s, tape)
    return lambda op, _: price.latency_s(op, kernel_s)


def _numbers_s(price: CostModel, op: Op, hardware: Hardware) -> Callable[..., Num]:
    """The latency of an operation as a function of the values of its symbols; single ones are floats, as in a graph."""
    filled = filler(op)
    return lambda *values: (
        price(filled(float(value) if isinstance(value, int) else value for value in values), hardware).latency_s
    )


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
