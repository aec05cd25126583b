"""Functions of sizes that formulas call: recorded ones, and those that need actual numbers.

A kernel's price is a separate formula, on its own tape, and a call of it is one operation in the formula of a step.
Prices at single sizes are cached, since engines and sweeps repeat them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from graphsim.symbolic.again import again
from graphsim.symbolic.distinct import at_distinct
from graphsim.symbolic.expr import Expr, Tape, applied
from graphsim.symbolic.memo import Memo
from graphsim.symbolic.program import Program

_MOST_KEPT = 8192
"""Largest number of cached values: more would not fit the processor's cache, and look-ups would take too long."""

_READY_AFTER, _MOST_READY = 8, 512
"""Number of calls with equal sizes except for the first after which a specialised function pays, and how many are
cached.
"""

_MOST_BOUND = 32
"""Number of different rates for which a kernel is cached."""

Sizes = tuple[Any, ...]

Ready = Callable[[Any], Any]


class Remembering:
    """A function of sizes, numbers or arrays, that caches its values at single numbers."""

    never_negative = True
    """Whether all values are at least zero, as for times and other functions of sizes."""

    def __init__(self) -> None:
        self.known: dict[Sizes, float] = {}

    def __call__(self, *sizes: Any) -> Any:
        """The value: a float of numbers, an array where any size is one."""
        try:
            value = self.known.get(sizes)
        except TypeError:  # arrays, which are not hashable
            return self._of_arrays(*sizes)
        if value is None:
            value = self._of_numbers(sizes)
            if len(self.known) >= _MOST_KEPT:
                self.known.clear()
            self.known[sizes] = value
        return value

    def _of_numbers(self, sizes: Sizes) -> float:
        raise NotImplementedError

    def _of_arrays(self, *sizes: Any) -> Any:
        raise NotImplementedError


class Kernel(Remembering):
    """A recorded function of sizes: data for printers, and callable; arrays are computed at their distinct values.

    If all sizes but the first repeat a few times, as for one weight, the specialised function of the first is cached.
    arguments: names of its sizes, and after them of the rates that it depends on; result: its formula
    """

    def __init__(
        self,
        sizes: Sequence[str],
        formula: Callable[..., Any],
        ready: Callable[..., Ready] | None = None,
        rates: Sequence[str] = (),
    ) -> None:
        """formula: gives the value from a symbol for each argument. Raises NotRecordable if it needs an actual number.

        ready: gives a faster function of the first argument, equal to rounding, from the values of the others
        rates: names of further arguments, which rarely change; unused ones are left out, unless `ready` takes them all
        """
        super().__init__()
        tape = Tape(literal=True)
        self.result = formula(*map(tape.variable, (*sizes, *rates)))
        free = self.result.free if isinstance(self.result, Expr) else frozenset()
        self.sizes, self.rates = len(sizes), tuple([name for name in rates if ready is not None or name in free])
        self.arguments = (*sizes, *self.rates)
        self._set(Program([self.result], {name: tape.variable(name) for name in self.arguments}), ready)

    def _set(self, program: Program, ready: Callable[..., Ready] | None) -> None:
        self._program, self._own_ready = program, ready
        self._came: dict[Sizes, int] = {}
        self._ready: dict[Sizes, Ready] = {}
        self._bound: Memo[Kernel] = Memo(most=_MOST_BOUND)

    def with_known(self, known: Sequence[Any]) -> tuple[Kernel, list[int]]:
        """The function at known rates, and the positions of its other operands; itself if they are unknown.

        known: the value of each operand, None if unknown
        """
        rates = tuple(known[self.sizes :])
        if not rates or any(rate is None for rate in rates):
            return self, list(range(len(known)))
        return self.bound(rates), list(range(self.sizes))

    def bound(self, rates: Sizes) -> Kernel:
        """The function of the sizes alone, at given values of the rates."""
        return self._bound.get(rates, lambda: BoundKernel(self, rates)) if self.rates else self

    def _of_numbers(self, sizes: Sizes) -> float:
        seldom = sizes[1:]
        ready = self._ready.get(seldom)
        if ready is not None:
            return float(ready(sizes[0]))
        self._count(seldom)
        return float(self._program.at(*sizes)[0])

    def _count(self, seldom: Sizes) -> None:
        if len(self._came) >= _MOST_KEPT:
            self._came.clear()
        times = self._came[seldom] = self._came.get(seldom, 0) + 1
        if times > _READY_AFTER:
            self._ready_for(seldom)

    def _ready_for(self, seldom: Sizes) -> Ready:
        """The cached function of the first argument."""
        ready = self._ready.get(seldom)
        if ready is None:
            if len(self._ready) >= _MOST_READY:
                self._ready.clear()
            ready = self._ready[seldom] = self._maker(*seldom)
        return ready

    @cached_property
    def _maker(self) -> Callable[..., Ready]:
        return self._own_ready or self._program.in_stages(1)

    def _of_arrays(self, *sizes: Any) -> Any:
        return at_distinct(self._of_different, sizes)

    def _of_different(self, *sizes: Any) -> Any:
        if self._own_ready is not None and not any(isinstance(size, np.ndarray) for size in sizes[1:]):
            return self._ready_for(sizes[1:])(sizes[0])
        return self._program.at(*sizes)[0]


class BoundKernel(Kernel):
    """A kernel at given values of its rates."""

    def __init__(self, of: Kernel, rates: Sizes) -> None:
        Remembering.__init__(self)
        self._of, self._values = of, dict(zip(of.rates, rates, strict=True))
        self.sizes, self.rates, self.arguments = of.sizes, (), of.arguments[: of.sizes]
        ready = of._own_ready
        own = None if ready is None else lambda *seldom: ready(*seldom, *rates)
        self._set(of._program.bound(self._values), own)

    @cached_property
    def result(self) -> Any:
        """The formula of the sizes."""
        tape = Tape(literal=True)
        return again(self._of.result, lambda name: self._values[name] if name in self._values else tape.variable(name))


def called(kernel: Kernel, sizes: Sequence[Any], rates: Sequence[Any]) -> Any:
    """A kernel's value at sizes and rates, symbols or numbers; `rates` are all that it was made with."""
    if not any(isinstance(rate, Expr | np.ndarray) for rate in rates):
        return applied(kernel.bound(tuple(rates)), *sizes)
    return applied(kernel, *sizes, *rates)


class Opaque(Remembering):
    """A function that needs actual numbers, one at a time, since it branches on them; it may jump anywhere.

    refused: why it is not recorded, with file and line
    """

    def __init__(self, function: Callable[..., Any], refused: str) -> None:
        super().__init__()
        self._function, self.refused = function, refused

    def _of_numbers(self, sizes: Sizes) -> float:
        return float(self._function(*sizes))

    def _of_arrays(self, *sizes: Any) -> Any:
        grid = np.broadcast(*sizes)
        return np.array([self(*map(float, at)) for at in grid], dtype=float).reshape(grid.shape)
