"""Looking up a surface's tables with source of its own: a straight line of Python for coordinates that are numbers,
and numpy's calls for those that vary.

The source hangs on which tables there are and which coordinates vary; it is written once for each such kind and then
serves every surface of that kind. Names in it are made here; nothing from a file becomes part of it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import chain, count
from math import prod
from typing import Any

import numpy as np

from graphsim.cost.surfaces.tables import Array, Term
from graphsim.symbolic.source import defined

Lookup = Callable[..., Any]
"""From the surface's coordinates, in order, to the sum of its tables."""

_Kind = tuple[tuple[tuple[int, int], ...], ...]
"""For each table, the position of each of its coordinates, and how many knots it has there."""


def lookup(terms: Sequence[Term], names: Sequence[str], varying: tuple[bool, ...], *, exact: bool = True) -> Lookup:
    """The look-up of a surface at coordinates in the order of `names`, of which some are arrays.

    exact: whether arrays are looked up to the last bit as numbers are; where not, numpy interpolates
    """
    kind = tuple(tuple((names.index(n), len(k)) for n, k in zip(t.axes, t.knots, strict=True)) for t in terms)
    by_name = {name: axis for term in terms for name, axis in zip(term.axes, term.knots, strict=True)}
    along = [any(varying[at] for at, _ in axes) for axes in kind]
    made = _maker(kind, varying, exact)
    knots = [
        _as_arrays(by_name[n]) if vary else _as_lists(by_name[n].tobytes())
        for n, vary in zip(names, varying, strict=True)
    ]
    return made(
        *chain(*zip(*knots, strict=True)),
        *[term.values if vary else term.values.ravel().tolist() for term, vary in zip(terms, along, strict=True)],
        *[_rise(term.values) for term in terms],
    )


def _as_arrays(axis: Array) -> tuple[Any, Any, Any]:
    """Inner knots, knots and gaps of a coordinate, where numpy looks up."""
    return axis[1:-1], axis, np.diff(axis)


@lru_cache(maxsize=1024)
def _as_lists(axis: bytes) -> tuple[list[float], list[float], list[float]]:
    """The same in lists, which a number is looked up in sooner; look-ups share them, so that they stay in the cache."""
    knots = np.frombuffer(axis)
    return knots[1:-1].tolist(), knots.tolist(), np.diff(knots).tolist()


def _rise(values: Array) -> list[float]:
    """From every value to the next one along the last axis."""
    last = np.zeros_like(values[..., :1]) if values.ndim else 0.0
    return np.diff(values, append=last).ravel().tolist() if values.ndim else [0.0]


@lru_cache(maxsize=256)
def _maker(kind: _Kind, varying: tuple[bool, ...], exact: bool) -> Callable[..., Lookup]:
    """A function that makes the look-up from inner knots, knots and gaps of all coordinates, tables and their rises."""
    writer = _Writer(varying)
    lines = [not exact and [varying[at] for at, _ in axes] == [True] + [False] * (len(axes) - 1) for axes in kind]
    for at in sorted({at for axes, line in zip(kind, lines, strict=True) for at, _ in axes[line:]}):
        writer.place(at)
    for number, (axes, line) in enumerate(zip(kind, lines, strict=True)):
        (writer.add_line if line else writer.add)(number, axes)
    coordinates, tables = range(len(varying)), range(len(kind))
    held = [f"{part}{at}" for part in ("inner", "knots", "gaps") for at in coordinates]
    held += [f"{part}{number}" for part in ("table", "rise") for number in tables]
    body = "\n        ".join(["total = 0.0", *writer.lines, "return total"])
    inner = f"def lookup({', '.join(f'x{at}' for at in coordinates)}):\n        {body}\n    return lookup"
    source = f"def maker({', '.join(held)}):\n    {inner}\n"
    names = {"bisect_right": bisect_right, "maximum": np.maximum, "minimum": np.minimum, "interp": np.interp}
    return defined("maker", source, names)


class _Writer:
    """Lines of a look-up. A coordinate's place is the knot on its left, i, and the way to the next one, w."""

    def __init__(self, varying: tuple[bool, ...]) -> None:
        self.varying, self.lines = varying, list[str]()
        self._numbers = count()

    def place(self, at: int) -> None:
        """The place of a coordinate, held within the table."""
        i, w, way = f"i{at}", f"w{at}", f"(x{at} - knots{at}[i{at}]) / gaps{at}[i{at}]"
        if self.varying[at]:
            self.lines += [f"{i} = inner{at}.searchsorted(x{at}, 'right')"]
            self.lines += [f"{w} = minimum(maximum({way}, 0.0), 1.0)"]
        else:
            self.lines += [f"{i} = bisect_right(inner{at}, x{at})", f"{w} = {way}"]
            self.lines += [f"{w} = 0.0 if {w} < 0.0 else 1.0 if {w} > 1.0 else {w}"]

    def add(self, number: int, axes: tuple[tuple[int, int], ...]) -> None:
        """One table: between its knots along the last coordinate first, then along the one before, …

        Last coordinates that do not vary are gone through at the knots of the others.
        """
        self._numbers = count()  # the names of one table's parts serve the next one's, so that few arrays are alive
        table, rest, rise = f"table{number}", list(axes), f"rise{number}"
        if any(self.varying[at] for at, _ in axes):
            table, rest = self._at_numbers(table, rest)
            table, rise = self._named(f"{table}.ravel()"), ""
        steps = [(f"i{at}", prod(length for _, length in rest[n + 1 :])) for n, (at, _) in enumerate(rest)]
        base = " + ".join([f"{i} * {step}" if step > 1 else i for i, step in steps] or ["0"])
        self.lines.append(f"total = total + {self._corner(table, rise, self._named(base), 0, rest)}")

    def add_line(self, number: int, axes: tuple[tuple[int, int], ...]) -> None:
        """One table of which the first coordinate alone varies."""
        self._numbers = count()
        table, ((at, _),) = self._at_numbers(f"table{number}", list(axes))
        self.lines.append(f"total = total + interp(x{at}, knots{at}, {table})")

    def _at_numbers(self, table: str, axes: list[tuple[int, int]]) -> tuple[str, list[tuple[int, int]]]:
        """The table over its other coordinates, where the last ones do not vary."""
        while len(axes) > 1 and not self.varying[axes[-1][0]]:
            at, _ = axes.pop()
            table = self._between(f"{table}[..., i{at}]", f"{table}[..., i{at} + 1]", at)
        return table, axes

    def _corner(self, table: str, rise: str, base: str, offset: int, axes: Sequence[tuple[int, int]]) -> str:
        """The value at one choice of knots of the first coordinates, and between those of the others."""
        cell = f"{base} + {offset}" if offset else base
        if not axes:
            return self._named(f"{table}[{cell}]")
        (at, _), others = axes[0], axes[1:]
        if rise and not others:
            return self._named(f"{table}[{cell}] + {rise}[{cell}] * w{at}")
        low = self._corner(table, rise, base, offset, others)
        high = self._corner(table, rise, base, offset + prod(length for _, length in others), others)
        return self._between(low, high, at)

    def _between(self, low: str, high: str, at: int) -> str:
        low = self._named(low)
        return self._named(f"{low} + ({high} - {low}) * w{at}")

    def _named(self, formula: str) -> str:
        if formula.isidentifier():
            return formula
        name = f"v{next(self._numbers)}"
        self.lines.append(f"{name} = {formula}")
        return name
