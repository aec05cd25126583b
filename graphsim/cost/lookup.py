"""Looking up a surface's tables with source of its own: a straight line of Python for coordinates that are numbers,
and numpy's calls for those that vary.

The source hangs on which tables there are and which coordinates vary; it is written once for each such kind and then
serves every surface of that kind. Names in it are made here; nothing from a file becomes part of it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import count
from math import prod
from typing import Any

import numpy as np

from graphsim.cost.tables import Term
from graphsim.symbolic.source import defined

Lookup = Callable[..., Any]
"""From the surface's coordinates, in order, to the sum of its tables."""

_Kind = tuple[tuple[tuple[int, int], ...], ...]
"""For each table, the position of each of its coordinates, and how many knots it has there."""


def lookup(terms: Sequence[Term], names: Sequence[str], varying: tuple[bool, ...]) -> Lookup:
    """The look-up of a surface at coordinates in the order of `names`, of which some are arrays."""
    kind = tuple(tuple((names.index(n), len(k)) for n, k in zip(t.axes, t.knots, strict=True)) for t in terms)
    by_name = {name: axis for term in terms for name, axis in zip(term.axes, term.knots, strict=True)}
    knots, tables = [by_name[name] for name in names], [term.values for term in terms]
    along = [any(varying[at] for at, _ in axes) for axes in kind]
    return _maker(kind, varying)(
        [axis if vary else axis.tolist() for axis, vary in zip(knots, varying, strict=True)],
        [axis[1:-1] for axis in knots],
        [np.diff(axis) for axis in knots],
        tables,
        [table.ravel() if vary else table.ravel().tolist() for table, vary in zip(tables, along, strict=True)],
    )


@lru_cache(maxsize=256)
def _maker(kind: _Kind, varying: tuple[bool, ...]) -> Callable[..., Lookup]:
    """A function that makes the look-up from knots, inner knots, gaps, tables and flat tables."""
    writer = _Writer(varying)
    for at in sorted({at for axes in kind for at, _ in axes}):
        writer.place(at)
    for number, axes in enumerate(kind):
        writer.add(number, axes)
    arguments = ", ".join(f"x{at}" for at in range(len(varying)))
    body = "\n        ".join(["total = 0.0", *writer.lines, "return total"])
    inner = f"def lookup({arguments}):\n        {body}\n    return lookup"
    source = f"def maker(k, inner, gap, table, flat):\n    {inner}\n"
    names = {"bisect_right": bisect_right, "maximum": np.maximum, "minimum": np.minimum}
    return defined("maker", source, names)


class _Writer:
    """Lines of a look-up. A coordinate's place is the knot on its left, i, and the way to the next one, w."""

    def __init__(self, varying: tuple[bool, ...]) -> None:
        self.varying, self.lines = varying, list[str]()
        self._numbers = count()

    def place(self, at: int) -> None:
        """The place of a coordinate, held within the table."""
        k, x, i, w = f"k[{at}]", f"x{at}", f"i{at}", f"w{at}"
        if self.varying[at]:
            self.lines += [
                f"{i} = inner[{at}].searchsorted({x}, 'right')",
                f"{w} = minimum(maximum(({x} - {k}[{i}]) / gap[{at}][{i}], 0.0), 1.0)",
            ]
        else:
            self.lines += [
                f"{i} = bisect_right({k}, {x}, 1, len({k}) - 1) - 1",
                f"{w} = ({x} - {k}[{i}]) / ({k}[{i} + 1] - {k}[{i}])",
                f"{w} = 0.0 if {w} < 0.0 else 1.0 if {w} > 1.0 else {w}",
            ]

    def add(self, number: int, axes: tuple[tuple[int, int], ...]) -> None:
        """One table: between its knots along the last coordinate first, then along the one before, …

        Last coordinates that do not vary are gone through at the knots of the others.
        """
        self._numbers = count()  # the names of one table's parts serve the next one's, so that few arrays are alive
        table, rest = f"flat[{number}]", list(axes)
        if any(self.varying[at] for at, _ in axes):
            whole = f"table[{number}]"
            while len(rest) > 1 and not self.varying[rest[-1][0]]:
                at, _ = rest.pop()
                whole = self._between(f"{whole}[..., i{at}]", f"{whole}[..., i{at} + 1]", at)
            table = table if rest == list(axes) else self._named(f"{whole}.ravel()")
        base = " + ".join(f"i{at} * {prod(length for _, length in rest[n + 1 :])}" for n, (at, _) in enumerate(rest))
        self.lines.append(f"total = total + {self._corner(table, self._named(base), 0, rest)}")

    def _corner(self, table: str, base: str, offset: int, axes: Sequence[tuple[int, int]]) -> str:
        """The value at one choice of knots of the first coordinates, and between those of the others."""
        if not axes:
            return self._named(f"{table}[{base} + {offset}]" if offset else f"{table}[{base}]")
        (at, _), others = axes[0], axes[1:]
        low = self._corner(table, base, offset, others)
        high = self._corner(table, base, offset + prod(length for _, length in others), others)
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
