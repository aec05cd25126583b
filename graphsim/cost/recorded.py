"""Prices of operations whose numbers are symbols: formulas, or calls where a price needs the actual numbers.

Calls remember what they gave before, and are made together where they can be.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property, partial
from typing import Any

import numpy as np

from graphsim.cost.base import Cost, CostModel
from graphsim.cost.calibrated import BYTE_MOVERS, Prices, content, is_product
from graphsim.cost.products import Product
from graphsim.hardware import Hardware
from graphsim.ops import Op
from graphsim.symbolic.distinct import at_distinct
from graphsim.symbolic.duration import Duration
from graphsim.symbolic.expr import Expr, NotRecordable, Tape
from graphsim.symbolic.program import Program
from graphsim.symbolic.substitute import filler, symbols_in
from graphsim.units import Num


class _Recorded(Cost):
    """A price of which only the latency is asked."""

    @property
    def bound(self) -> str:
        """Not known before the numbers are."""
        return ""


def recorded(price: CostModel, tape: Tape) -> CostModel:
    """Prices that are formulas of the operation's symbols, or calls where the cost model needs their numbers."""
    if isinstance(price, Prices):
        return _Calibrated(price, tape)

    def formula_or_call(op: Op, hardware: Hardware) -> Cost:
        symbols = symbols_in(op)
        if not symbols:
            return price(op, hardware)
        latency: Any
        try:
            latency = price(op, hardware).latency_s
        except NotRecordable:
            latency = tape.apply(Duration(_Latency(price, op, hardware)), *symbols)
        return _Recorded(busy_s=latency)

    return formula_or_call


class _Calibrated:
    """A calibrated cost model's prices: calls of its fits, and formulas of them for the rest."""

    def __init__(self, prices: Prices, tape: Tape) -> None:
        self.prices, self.tape = prices, tape
        self.products: dict[str, Duration] = {}
        self.mover = Duration(_Calls(prices.move_s, _formula(prices.move_s, 1)), _together)
        self.others: dict[Any, Any] = {}

    def __call__(self, op: Op, hardware: Hardware) -> Cost:
        symbols = symbols_in(op)
        if not symbols:
            return self.prices(op, hardware)
        if is_product(op):
            return _Recorded(busy_s=self.prices.product_s(op, self._call_s))  # type: ignore[arg-type]
        if isinstance(op, BYTE_MOVERS):
            return _Recorded(busy_s=self.prices.mover_s(op, self._move_s))
        sizes = self.prices.sizes(op)
        if not sizes:
            return _Recorded(busy_s=self.prices.formula_s(op))
        key = tuple([size.serial if isinstance(size, Expr) else ("", size) for size in sizes])
        if key not in self.others:
            self.others[key] = self.tape.apply(Duration(_Latency(self.prices, op, hardware), _together), *symbols)
        return _Recorded(busy_s=self.others[key])

    def _move_s(self, moved_bytes: Num) -> Any:
        return self.tape.apply(self.mover, moved_bytes)

    def _call_s(self, product: Product) -> Any:
        dtype = product.dtype
        if dtype not in self.products:
            self.products[dtype] = Duration(_Calls(partial(self.prices.call_s, dtype)), _together)
        return self.tape.apply(self.products[dtype], product.rows, product.n, product.k)


_REMEMBERED = 4096
"""Sizes of an operation whose single prices are kept: engines' steps come back to the same token counts."""

_REMEMBERED_SHORT, _SHORT = 256, 1024
"""Short arrays whose prices are kept, as of the contexts of a generation, and values of the longest of them."""

_PAYS, _MOST_RECORDED = 4, 8192
"""Prices of an operation from which on recording a program for them pays, and values that it is run for: it keeps all
of its intermediate results."""


class _Calls:
    """The latency of calls of one kind as a function of their sizes, from one that takes arrays of sizes.

    formula: the same, recorded, where it is short enough to be sooner for single sizes
    """

    def __init__(self, price: Callable[..., Num], formula: Program | None = None) -> None:
        self.price, self.formula = price, formula
        self.known: dict[tuple[Any, ...], float] = {}

    def __call__(self, *sizes: Any) -> Num:
        """Seconds; arrays are priced at their distinct values."""
        try:
            return self.known[sizes]
        except KeyError:
            self.learn([sizes])
            return self.known[sizes]
        except TypeError:  # arrays, which are not hashable
            latency: Num = at_distinct(self.price, sizes)
            return latency

    def learn(self, calls: list[Any]) -> None:
        """Price single calls, and keep the prices; make room now and then."""
        if len(self.known) >= 16 * _REMEMBERED:
            self.known.clear()
        if self.formula is not None:
            self.known.update({sizes: self.formula(dict(zip(_NAMES, sizes, strict=False)))[0] for sizes in calls})
            return
        seconds = np.broadcast_to(self.price(*np.array(calls, dtype=float).T), len(calls)).tolist()
        self.known.update(zip(calls, seconds, strict=True))


class _Latency:
    """The latency of one operation as a function of the values of its symbols."""

    def __init__(self, price: CostModel, op: Op, hardware: Hardware) -> None:
        self.price, self.hardware, self.op = price, hardware, filler(op)
        self.known: dict[tuple[Any, ...], Num] = {}
        self.known_arrays: dict[tuple[Any, ...], Num] = {}
        self._symbols, self._asked = len(symbols_in(op)), 0

    def __call__(self, *values: Any) -> Num:
        """Seconds; arrays are priced at their distinct values."""
        many = [value.size for value in values if isinstance(value, np.ndarray)]
        if sum(many) > _SHORT:
            latency: Num = at_distinct(self._priced, values)
            return latency
        key, known, most = values, self.known, _REMEMBERED
        if many:
            key, known, most = tuple(map(content, values)), self.known_arrays, _REMEMBERED_SHORT
        if key not in known:
            if len(known) >= most:
                known.clear()
            known[key] = self._priced(*values)
        return known[key]

    def _priced(self, *values: Any) -> Num:
        if max([value.size if isinstance(value, np.ndarray) else 1 for value in values]) <= _MOST_RECORDED:
            self._asked += 1
            if self._asked > _PAYS and self._program is not None:
                return self._program(dict(zip(_NAMES, values, strict=False)))[0]  # type: ignore[no-any-return]
        op = self.op(iter(values))
        return self.price.formula_s(op) if isinstance(self.price, Prices) else self.price(op, self.hardware).latency_s

    @cached_property
    def _program(self) -> Program | None:
        """The recorded price for few values, where it can be recorded."""
        if not isinstance(self.price, Prices):
            return None
        formula_s, op = self.price.formula_s, self.op
        return _formula(lambda *values: formula_s(op(iter(values))), self._symbols)


_NAMES = [str(i) for i in range(64)]


def _formula(price: Callable[..., Num], sizes: int) -> Program | None:
    """A price of so many numbers as a program; None where it cannot be recorded."""
    tape = Tape(literal=True)
    try:
        return Program([price(*[tape.variable(name) for name in _NAMES[:sizes]])])
    except NotRecordable:
        return None


def _together(asked: list[tuple[Callable[..., Num], tuple[Any, ...]]]) -> list[Num]:
    """Latencies at single values; calls of one kind that are not known yet are priced in one go."""
    new: dict[_Calls, dict[Any, None]] = {}
    for function, sizes in asked:
        if isinstance(function, _Calls) and sizes not in function.known:
            new.setdefault(function, {})[sizes] = None
    for calls, unknown in new.items():
        calls.learn(list(unknown))
    return [function(*values) for function, values in asked]
