"""A surface where some coordinates are symbols: a call that is recorded, and later asked for in fewer tables."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any, Protocol

import numpy as np

from graphsim.cost.surfaces.folding import folded
from graphsim.cost.surfaces.lookup import Lookup, lookup
from graphsim.cost.surfaces.tables import Term
from graphsim.symbolic.expr import Expr
from graphsim.units import Num


class SumOfTables(Protocol):
    """What is recorded: a surface, by its tables, the coordinates that they use, and its value at a place."""

    @property
    def terms(self) -> tuple[Term, ...]:
        """The tables."""

    @property
    def names(self) -> list[str]:
        """Coordinates that tables use, in the order in which `at` takes them."""

    def at(self, *place: Num) -> Num:
        """The sum of all tables."""


class AtSymbols:
    """A surface as a function of those of its coordinates that are symbols, in the order of `symbols`.

    Coordinates that are one symbol share an argument, unless they meet in a table.
    """

    def __init__(self, surface: SumOfTables, place: Sequence[Any]) -> None:
        self.surface, self._place = surface, place
        self.symbols: list[Expr] = []
        self._sharing: list[set[str]] = []
        self._alongs: dict[tuple[bool, ...], Lookup] = {}
        self._argument = [self._argument_of(name, x) for name, x in zip(surface.names, place, strict=True)]

    def _argument_of(self, name: str, x: Any) -> int:
        if not isinstance(x, Expr):
            return -1
        meeting = {other for term in self.surface.terms if name in term.axes for other in term.axes}
        for at, (symbol, sharing) in enumerate(zip(self.symbols, self._sharing, strict=True)):
            if symbol is x and meeting.isdisjoint(sharing):
                sharing.add(name)
                return at
        self.symbols.append(x)
        self._sharing.append({name})
        return len(self.symbols) - 1

    def __call__(self, *values: Num) -> Num:
        """The sum of all tables."""
        return self.surface.at(*self._filled(values))

    def along(self, *values: Num) -> Num:
        """The same where arrays are the steps of one scenario: but for rounding, with few tables."""
        varying = tuple([isinstance(value, np.ndarray) for value in values])
        if varying not in self._alongs:
            self._alongs[varying] = self._lookup([None] * len(values), varying)
        found: Num = self._alongs[varying](*values)
        return found

    def narrowed(self, values: Sequence[float | None]) -> Lookup:
        """The same for single numbers, of which some are given: a function of the others, with few tables."""
        return self._lookup(values, (False,) * values.count(None))

    def _lookup(self, values: Sequence[float | None], varying: tuple[bool, ...]) -> Lookup:
        place = dict(zip(self.surface.names, self._filled(values), strict=True))
        fixed = {name: x for name, x in place.items() if x is not None}
        terms = folded(self.surface.terms, fixed, self._names)
        return lookup(terms, [str(at) for at, value in enumerate(values) if value is None], varying, exact=False)

    @cached_property
    def _names(self) -> dict[str, str]:
        """A name for each coordinate; the same one for those that are one symbol."""
        return {name: str(at) for name, at in zip(self.surface.names, self._argument, strict=True)}

    def _filled(self, values: Sequence[Any]) -> list[Any]:
        return [x if at < 0 else values[at] for x, at in zip(self._place, self._argument, strict=True)]
