"""Prices as functions of sizes that keep what they gave: engines and sweeps come back to the same sizes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from graphsim.symbolic.distinct import at_distinct
from graphsim.symbolic.expr import NotRecordable, Tape
from graphsim.symbolic.program import Program
from graphsim.units import Num

_REMEMBERED = 65_536
"""Single prices that are kept."""

_REMEMBERED_SHORT, _SHORT = 256, 1024
"""Short arrays whose prices are kept, as of the contexts of a generation, and values of the longest of them."""

_PAYS, _MOST_RECORDED = 4, 8192
"""Prices from which on recording a program for them pays, and values that it is run for: it keeps all of its
intermediate results."""

_MOST_READY = 512
"""Sets of sizes that seldom change, of which the price is kept ready as a function of the others."""

_NAMES = [str(i) for i in range(64)]

Sizes = tuple[Any, ...]


class Remembering:
    """A price as a function of sizes, numbers or arrays; arrays are priced at their distinct values.

    recordable: how many sizes there are, where the price takes symbols too and may be turned into a program
    """

    def __init__(self, price: Callable[..., Num], *, recordable: int = 0) -> None:
        self.known: dict[Sizes, Num] = {}
        self._price, self._recordable = price, recordable
        self._known_arrays: dict[Sizes, Num] = {}
        self._asked = 0

    def __call__(self, *sizes: Any) -> Num:
        """Seconds."""
        try:
            return self.known[sizes]
        except KeyError:
            self.learn([sizes])
            return self.known[sizes]
        except TypeError:  # arrays, which are not hashable
            return self._of_arrays(sizes)

    def learn(self, calls: Sequence[Sizes]) -> None:
        """Price calls of single sizes, and keep the prices; make room now and then."""
        if len(self.known) >= _REMEMBERED:
            self.known.clear()
        self.known.update(zip(calls, self._singles(calls), strict=True))

    def _singles(self, calls: Sequence[Sizes]) -> Sequence[Num]:
        self._asked += 1
        price = (self._asked > _PAYS and self._single) or self._price
        return [price(*sizes) for sizes in calls]

    def along(self, *sizes: Any) -> Num:
        """The same where arrays are the steps of one scenario; but for rounding, and sooner."""
        return self._of_arrays(sizes, along=True)

    def _of_arrays(self, sizes: Sizes, *, along: bool = False) -> Num:
        if sum([size.size for size in sizes if isinstance(size, np.ndarray)]) > _SHORT:
            seconds: Num = self._priced(*sizes, along=True) if along else at_distinct(self._priced, sizes)
            return seconds
        values = tuple([(size.shape, size.tobytes()) if isinstance(size, np.ndarray) else size for size in sizes])
        key = (along, *values)
        if key not in self._known_arrays:
            if len(self._known_arrays) >= _REMEMBERED_SHORT:
                self._known_arrays.clear()
            self._known_arrays[key] = self._priced(*sizes, along=along)
        return self._known_arrays[key]

    def _priced(self, *sizes: Any, along: bool = False) -> Num:
        self._asked += 1
        few = max([size.size if isinstance(size, np.ndarray) else 1 for size in sizes]) <= _MOST_RECORDED
        if few and self._asked > _PAYS and self._program is not None:
            seconds: Num = self._program(dict(zip(_NAMES, sizes, strict=False)), along=along)[0]
            return seconds
        return self._price(*sizes)

    @cached_property
    def _single(self) -> Callable[..., float] | None:
        """The price of single sizes, where it can be recorded."""
        return self._program.of_numbers([], _NAMES[: self._recordable])() if self._program is not None else None

    @cached_property
    def _program(self) -> Program | None:
        """The recorded price, where it can be recorded: within arrays equal to the price to the last bit."""
        if not self._recordable:
            return None
        tape = Tape(literal=True)
        try:
            return Program([self._price(*[tape.variable(name) for name in _NAMES[: self._recordable]])])
        except NotRecordable:
            return None


class Batched(Remembering):
    """A price of calls that are many at a time: worked out in one go, until some of their sizes come back.

    often: how many sizes, the first ones, change often; the price under the others is kept ready once these came back
        a few times
    """

    def __init__(self, price: Callable[..., Num], *, recordable: int, often: int) -> None:
        super().__init__(price, recordable=recordable)
        self._often = often
        self._came: dict[Sizes, int] = {}
        self._ready: dict[Sizes, Callable[..., float]] = {}

    def _singles(self, calls: Sequence[Sizes]) -> Sequence[Num]:
        often, found, fresh = self._often, dict[Sizes, Num](), list[Sizes]()
        for sizes in calls:
            ready = self._ready.get(sizes[often:]) or self._prepared(sizes[often:])
            if ready:
                found[sizes] = ready(*sizes[:often])
            else:
                fresh.append(sizes)
        if fresh:
            found.update(zip(fresh, self._in_one_go(fresh), strict=True))
        return [found[sizes] for sizes in calls]

    def _in_one_go(self, calls: Sequence[Sizes]) -> list[float]:
        seconds: list[float] = np.asarray(self._price(*np.array(calls, dtype=float).T)).tolist()
        return seconds

    def _prepared(self, seldom: Sizes) -> Callable[..., float] | None:
        """The price as a function of the sizes that change often, once it pays."""
        times = self._came[seldom] = self._came.get(seldom, 0) + 1
        if times <= _PAYS or self._maker is None:
            return None
        if len(self._ready) >= _MOST_READY:
            self._ready.clear()
            self._came.clear()
        ready = self._ready[seldom] = self._maker(*seldom)
        return ready

    @cached_property
    def _maker(self) -> Callable[..., Callable[..., float]] | None:
        names = _NAMES[: self._recordable]
        return self._program.of_numbers(names[self._often :], names[: self._often]) if self._program else None


def timed_together(asked: list[tuple[Remembering, Sizes]]) -> list[Num]:
    """Prices of calls of single sizes; calls of one function that are not known yet are priced in one go."""
    new: dict[Remembering, dict[Sizes, None]] = {}
    for function, sizes in asked:
        if sizes not in function.known:
            new.setdefault(function, {})[sizes] = None
    for calls, unknown in new.items():
        calls.learn(list(unknown))
    try:
        return [function.known[sizes] for function, sizes in asked]
    except KeyError:  # room was made
        return [function(*sizes) for function, sizes in asked]
