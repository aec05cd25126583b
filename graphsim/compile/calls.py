"""Prices as functions of sizes that keep what they gave: engines and sweeps come back to the same sizes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from graphsim.errors import GraphsimError
from graphsim.symbolic.distinct import at_distinct
from graphsim.symbolic.expr import Tape
from graphsim.symbolic.program import Program
from graphsim.symbolic.refusal import CONFUSED, reason
from graphsim.units import Num

_MOST_KEPT = 8192
"""Single prices that are kept: more would not fit the processor's cache, and look-ups would take too long."""

_KEPT_SHORT, _SHORT = 256, 1024
"""Short arrays whose prices are kept, as of the contexts of a generation, and values of the longest of them."""

_RECORD_AFTER, _MOST_RECORDED = 4, 8192
"""Prices from which on recording a program for them pays, and values that it is run for: it keeps all of its
intermediate results."""

_MOST_READY = 512
"""Sets of sizes that seldom change, of which the price is kept ready as a function of the others."""

Sizes = tuple[Any, ...]

UNLIKE = "a price of symbols is another one than that of numbers"
"""Why a price is not recorded that took no notice of a symbol, as where it asked for the type of its sizes."""


def agrees(price: Callable[..., Num], recorded: Iterable[tuple[Num, Sizes]]) -> bool:
    """Whether a price is what was recorded of it, given as pairs of seconds and sizes."""
    try:
        return all(math.isclose(seconds, price(*sizes), rel_tol=1e-9) for seconds, sizes in recorded)
    except (GraphsimError, *CONFUSED):
        return False


class Remembering:
    """A price as a function of sizes, numbers or arrays; arrays are priced at their distinct values.

    recordable: how many sizes there are, where the price takes symbols too and may be turned into a program
    asks: whether the price may ask for actual numbers, as a branch does; unless it can be recorded, it is then given
        one number at a time
    proofs: sizes at which a program has to give the price, or it is not used; none where the price is trusted
    """

    def __init__(
        self, price: Callable[..., Num], *, recordable: int = 0, asks: bool = False, proofs: Sequence[Sizes] = ()
    ) -> None:
        self.known: dict[Sizes, Num] = {}
        self._price, self._asks, self._proofs = price, asks, proofs
        self._names = [str(i) for i in range(recordable)]
        self._alone: Callable[..., float] | None = None
        self._known_arrays: dict[Sizes, Num] = {}
        self._asked = 0

    def __call__(self, *sizes: Any) -> Num:
        """Seconds."""
        try:
            return self.known[sizes]
        except KeyError:
            return timed_together([(self, sizes)])[0]
        except TypeError:  # arrays, which are not hashable
            return self._of_arrays(sizes)

    def soon(self, sizes: Sizes) -> Num | None:
        """The price of single sizes, kept from now on, where a program for it is ready."""
        if self._alone is None:
            return None
        return self._keep(sizes, self._alone(*sizes))

    def learn(self, calls: Sequence[Sizes]) -> list[Num]:
        """The prices of calls of single sizes, kept from now on; a program gets ready once it pays."""
        self._asked += 1
        if self._asked > _RECORD_AFTER:
            self._alone = self._single
        price = self._alone or self._price
        return [self._keep(sizes, price(*sizes)) for sizes in calls]

    def _keep(self, sizes: Sizes, price: Num) -> Num:
        if len(self.known) >= _MOST_KEPT:
            self.known.clear()
        self.known[sizes] = price
        return price

    def along(self, *sizes: Any) -> Num:
        """The same where arrays are the steps of one scenario: faster, equal to rounding."""
        return self._of_arrays(sizes, along=True)

    def _of_arrays(self, sizes: Sizes, *, along: bool = False) -> Num:
        if sum([size.size for size in sizes if isinstance(size, np.ndarray)]) > _SHORT:
            seconds: Num = self._priced(*sizes, along=True) if along else at_distinct(self._priced, sizes)
            return seconds
        values = tuple([(size.shape, size.tobytes()) if isinstance(size, np.ndarray) else size for size in sizes])
        key = (along, *values)
        found = self._known_arrays.get(key)
        if found is None:
            if len(self._known_arrays) >= _KEPT_SHORT:
                self._known_arrays.clear()
            found = self._known_arrays[key] = self._priced(*sizes, along=along)
        return found

    def _priced(self, *sizes: Any, along: bool = False) -> Num:
        if self.jumps:
            return self._one_by_one(sizes)
        self._asked += 1
        few = max([size.size if isinstance(size, np.ndarray) else 1 for size in sizes]) <= _MOST_RECORDED
        if few and self._asked > _RECORD_AFTER and self._program is not None:
            seconds: Num = self._program(dict(zip(self._names, sizes, strict=True)), along=along)[0]
            return seconds
        return self._price(*sizes)

    @cached_property
    def _single(self) -> Callable[..., float] | None:
        """The price of single sizes, where it can be recorded."""
        return self._program.of_numbers([], self._names)() if self._program is not None else None

    def _one_by_one(self, sizes: Sizes) -> Num:
        grid = np.broadcast(*sizes)
        return np.array([self(*map(float, at)) for at in grid], dtype=float).reshape(grid.shape)

    @property
    def refused(self) -> str:
        """Why no program was recorded of the price, with file and line; "" where one was."""
        return self._recorded[1]

    @property
    def jumps(self) -> bool:
        """Whether the price branches by actual numbers, so that it may jump anywhere."""
        return self._asks and bool(self.refused)

    @property
    def _program(self) -> Program | None:
        return self._recorded[0]

    @cached_property
    def _recorded(self) -> tuple[Program | None, str]:
        """The recorded price, within arrays equal to the price to the last bit; or None, and why there is none."""
        if not self._names:
            return None, "a price of no sizes"
        tape = Tape(literal=True)
        try:
            program = Program([self._price(*map(tape.variable, self._names))])
        except GraphsimError as error:
            if not self._proofs:
                raise
            return None, tape.refused or str(error)
        except CONFUSED as error:
            return None, reason(error)
        if not self._proofs:
            return program, ""
        if tape.refused:
            return None, tape.refused
        gives = (program(dict(zip(self._names, sizes, strict=True)))[0] for sizes in self._proofs)
        return (program, "") if agrees(self._price, zip(gives, self._proofs, strict=False)) else (None, UNLIKE)


class Batched(Remembering):
    """A price of calls that are many at a time: worked out in one go, until all of their sizes but the first come back.

    Where these came back a few times, the price under them is kept ready as a function of the first.
    """

    def __init__(self, price: Callable[..., Num], *, recordable: int) -> None:
        super().__init__(price, recordable=recordable)
        self._came: dict[Sizes, int] = {}
        self._ready: dict[Sizes, Callable[[Any], float]] = {}

    def soon(self, sizes: Sizes) -> Num | None:
        """The price of single sizes, kept from now on, where it is ready."""
        ready = self._ready.get(sizes[1:])
        return None if ready is None else self._keep(sizes, ready(sizes[0]))

    def learn(self, calls: Sequence[Sizes]) -> list[Num]:
        """The prices of calls of single sizes, worked out in one go and kept from now on."""
        found: list[Num] = np.asarray(self._price(*np.array(calls, dtype=float).T)).tolist()
        for sizes, price in zip(calls, found, strict=True):
            self._keep(sizes, price)
            self._count(sizes[1:])
        return found

    def _count(self, seldom: Sizes) -> None:
        if len(self._came) >= _MOST_KEPT:
            self._came.clear()
        times = self._came[seldom] = self._came.get(seldom, 0) + 1
        if times > _RECORD_AFTER and self._maker is not None:
            if len(self._ready) >= _MOST_READY:
                self._ready.clear()
            self._ready[seldom] = self._maker(*seldom)

    @cached_property
    def _maker(self) -> Callable[..., Callable[[Any], float]] | None:
        first, *others = self._names
        return self._program.of_numbers(others, [first]) if self._program else None


def timed_together(asked: Sequence[tuple[Remembering, Sizes]]) -> list[Num]:
    """Prices of calls of single sizes; calls of one function that no program is ready for are priced in one go."""
    found, late = list[Any](), dict[Remembering, dict[Sizes, None]]()
    for function, sizes in asked:
        price = function.known.get(sizes)
        if price is None:
            price = function.soon(sizes)
            if price is None:
                late.setdefault(function, {})[sizes] = None
        found.append(price)
    if not late:
        return found
    learnt = {function: dict(zip(calls, function.learn(list(calls)), strict=True)) for function, calls in late.items()}
    return [
        learnt[function][sizes] if price is None else price
        for (function, sizes), price in zip(asked, found, strict=True)
    ]
