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
        return [self._priced(*sizes) for sizes in calls]

    def _of_arrays(self, sizes: Sizes) -> Num:
        if sum([size.size for size in sizes if isinstance(size, np.ndarray)]) > _SHORT:
            seconds: Num = at_distinct(self._priced, sizes)
            return seconds
        key = tuple([(size.shape, size.tobytes()) if isinstance(size, np.ndarray) else size for size in sizes])
        if key not in self._known_arrays:
            if len(self._known_arrays) >= _REMEMBERED_SHORT:
                self._known_arrays.clear()
            self._known_arrays[key] = self._priced(*sizes)
        return self._known_arrays[key]

    def _priced(self, *sizes: Any) -> Num:
        if self._recordable and max([np.size(size) for size in sizes]) <= _MOST_RECORDED:
            self._asked += 1
            if self._asked > _PAYS and self._program is not None:
                return self._program(dict(zip(_NAMES, sizes, strict=False)))[0]  # type: ignore[no-any-return]
        return self._price(*sizes)

    @cached_property
    def _program(self) -> Program | None:
        """The recorded price, where it can be recorded: equal to the price to the last bit."""
        tape = Tape(literal=True)
        try:
            return Program([self._price(*[tape.variable(name) for name in _NAMES[: self._recordable]])])
        except NotRecordable:
            return None


class Batched(Remembering):
    """A price that is sooner worked out for several calls in one go."""

    def _singles(self, calls: Sequence[Sizes]) -> Sequence[Num]:
        return singles(self._price(*np.array(calls, dtype=float).T))


def singles(seconds: Num) -> list[float]:
    """The numbers in an array of prices."""
    found: list[float] = np.asarray(seconds).tolist()
    return found


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
