"""Prices of operations whose numbers are symbols: formulas, with calls where a price needs actual numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

from graphsim.cost.base import Cost, CostModel, Trusted
from graphsim.cost.calibrated import Prices
from graphsim.cost.rates import rates_of, with_rates
from graphsim.cost.users import UsersCost
from graphsim.errors import GraphsimError
from graphsim.hardware import Hardware
from graphsim.ops import Op
from graphsim.symbolic.expr import Expr, Tape
from graphsim.symbolic.kernel import Opaque
from graphsim.symbolic.memo import Memo
from graphsim.symbolic.program import Program
from graphsim.symbolic.refusal import CONFUSED, NotRecordable, reason
from graphsim.symbolic.substitute import filler, names_of, symbols_in
from graphsim.units import Num


class _Recorded(Cost):
    """A price of which only the latency is used."""

    @property
    def bound(self) -> str:
        """Unknown until the numbers are known."""
        return ""


Point = Mapping[str, float]
"""Values of all variables of a tape."""


class RecordedPrices(Protocol):
    """Prices that are formulas of the symbols of an operation, and of a device."""

    def __call__(self, op: Op, hardware: Hardware) -> Cost:
        """The price, of which only the latency is used."""

    def whole(self, op: Op, hardware: Hardware) -> Cost:
        """The price with its parts, as far as they are formulas."""


def price_formulas(price: CostModel, tape: Tape, points: Sequence[Point]) -> RecordedPrices:
    """Prices that are formulas of the operation's symbols, or calls where the cost model needs their numbers.

    points: where the formulas of a user's cost function must equal the function
    """
    return _OfUsers(price, tape, points) if isinstance(price, UsersCost) else _OfOwn(price, tape)


_PLACES = ("layer", "stage", "stream")
"""Fields for where an operation runs, on which none of the library's prices depend."""


class _OfOwn(Trusted):
    """Formulas and calls of the library's cost models."""

    def __init__(self, price: CostModel, tape: Tape) -> None:
        self._price, self._tape = price, tape
        self._latency_s, self._cost = _formulas(price)
        self._known: Memo[Cost] = Memo(most=512)
        self._fitted = isinstance(price, Prices) and bool(price.symbols)

    def __call__(self, op: Op, hardware: Hardware) -> Cost:
        if not self._fitted and not isinstance(hardware.memory_bytes_per_s, Expr) and not symbols_in(op):
            return self._price(op, hardware)
        kind: Any = type(op)
        parts = [getattr(op, name) for name in names_of(kind) if name not in _PLACES]
        return self._known.get((hardware, kind, *parts), lambda: self._recorded(op, hardware))

    def _recorded(self, op: Op, hardware: Hardware) -> Cost:
        latency: Any
        try:
            latency = self._latency_s(op, hardware)
        except GraphsimError:
            raise
        except CONFUSED as error:
            if self._fitted:
                raise NotRecordable(reason(error)) from None
            function, symbols = at_numbers(_latency_of(self._price), op, hardware)
            latency = self._tape.apply(Opaque(function, reason(error)), *symbols)
        return _Recorded(busy_s=latency)

    def whole(self, op: Op, hardware: Hardware) -> Cost:
        """With the parts of the price."""
        try:
            return self._cost(op, hardware)
        except GraphsimError:
            raise
        except CONFUSED:
            return self(op, hardware)


class _OfUsers(Trusted):
    """Formulas of a user's cost function that are verified at some points, and calls otherwise.

    A function may misread a symbol: it may swallow the error, or branch on the type of a size.
    """

    def __init__(self, price: UsersCost, tape: Tape, points: Sequence[Point]) -> None:
        self._price, self._tape, self._points = price, tape, points

    def __call__(self, op: Op, hardware: Hardware) -> Cost:
        symbols = symbols_in(op)
        if not symbols:
            return self._price(op, hardware)
        numbers_s, _ = at_numbers(_latency_of(self._price), op, hardware)
        before, self._tape.refused = self._tape.refused, ""
        try:
            latency, refused = self._formula(op, hardware, symbols, numbers_s)
        finally:
            self._tape.refused = before
        if refused:
            latency = self._tape.apply(Opaque(numbers_s, refused), *symbols)
        return _Recorded(busy_s=latency)

    whole = __call__

    def _formula(
        self, op: Op, hardware: Hardware, symbols: Sequence[Expr], numbers_s: Callable[..., Num]
    ) -> tuple[Any, str]:
        """The latency as a formula that is checked at every value; or the reason why there is none."""
        try:
            latency: Any = self._price(op, hardware).latency_s
        except GraphsimError as error:
            numbers_s(*self._proofs(symbols)[0])  # raises what the function raises for numbers
            return None, self._tape.refused or str(error)
        except CONFUSED as error:
            return None, reason(error)
        if self._tape.refused:
            return None, self._tape.refused
        recorded = Program([latency, *symbols])
        values = (recorded(point) for point in self._points)
        if not _agrees(numbers_s, ((found[0], tuple(found[1:])) for found in values)):
            return None, UNLIKE
        return self._tape.apply(_Checked(self._price, op), latency) if isinstance(latency, Expr) else latency, ""

    def _proofs(self, symbols: Sequence[Expr]) -> list[tuple[float, ...]]:
        """The sizes of an operation at the points."""
        sizes = Program(symbols)
        return [tuple(map(float, sizes(point))) for point in self._points]


UNLIKE = "a price of symbols is another one than that of numbers"
"""Why a price is not recorded that misread a symbol, for example by branching on the type of its sizes."""


def _agrees(price: Callable[..., Num], recorded: Iterable[tuple[Num, tuple[Any, ...]]]) -> bool:
    """Whether a price equals its recorded formula, given as pairs of seconds and sizes."""
    try:
        return all(math.isclose(seconds, price(*sizes), rel_tol=1e-9) for seconds, sizes in recorded)
    except (GraphsimError, *CONFUSED):
        return False


class _Checked:
    """The value of a formula of a user's cost function, which must be a valid time like any price."""

    never_negative = True

    def __init__(self, price: UsersCost, op: Op) -> None:
        self._price, self._op = price, op

    def __call__(self, seconds: Num) -> Num:
        self._price.check(seconds, "latency_s", self._op)
        return seconds


def _formulas(price: CostModel) -> tuple[Callable[[Op, Hardware], Any], CostModel]:
    """An operation's latency, and its price, as formulas; a calibrated cost model's hold calls of its kernels."""
    if not isinstance(price, Prices):
        return _latency_of(price), price
    kernels: Memo[Callable[[Any], Num]] = Memo(most=1)

    def kernels_on(hardware: Hardware) -> Callable[[Any], Num]:
        return kernels.get((hardware,), lambda: price.kernels_on(hardware))

    return (
        lambda op, hardware: price.latency_s(op, kernels_on(hardware), hardware),
        lambda op, hardware: price.cost(op, kernels_on(hardware), hardware),
    )


def at_numbers(function: Callable[[Op, Hardware], Num], op: Op, hardware: Hardware) -> tuple[Callable[..., Num], Any]:
    """A function of an operation and a device, as one of the values of their symbols, and these symbols.

    Single values are floats, as in a graph.
    """
    filled, symbols = filler(op), symbols_in(op)
    rates = {name: rate for name, rate in rates_of(hardware).items() if isinstance(rate, Expr)}

    def of(*values: Num) -> Num:
        plain = [float(value) if isinstance(value, int) else value for value in values]
        device = with_rates(hardware, dict(zip(rates, plain[len(symbols) :], strict=True))) if rates else hardware
        return function(filled(iter(plain)), device)

    return of, [*symbols, *rates.values()]


def _latency_of(price: CostModel) -> Callable[[Op, Hardware], Num]:
    return lambda op, hardware: price(op, hardware).latency_s
