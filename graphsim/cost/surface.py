"""Small smooth correction surfaces: what a fitted cost form is made of besides physics.

A cost is an analytic skeleton (bytes, flops, waves, launches) times exp(surface). The surface is a
sum of terms; each term is a table over one, two or three physical coordinates (such as log2 of the
tokens), interpolated linearly between its knots and held constant beyond them, so that far
outside the measured range only the physics goes on. `cost/fitting.py` fits them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from graphsim.cost.lookup import Lookup, lookup
from graphsim.cost.packed import MOST_POINTS, Packed
from graphsim.cost.tables import Term, under
from graphsim.errors import ConfigError
from graphsim.symbolic.expr import Expr, look_up
from graphsim.units import Num


@dataclass(frozen=True, kw_only=True)
class Surface:
    """A sum of tables over named coordinates, in log units: exp of it multiplies a skeleton."""

    terms: tuple[Term, ...]

    @cached_property
    def names(self) -> list[str]:
        """The coordinates that tables use, in order."""
        return list(dict.fromkeys(name for term in self.terms for name in term.axes))

    @cached_property
    def _packed(self) -> Packed:
        return Packed(self.terms)

    @cached_property
    def _lookups(self) -> dict[tuple[bool, ...], Lookup]:
        """By which coordinates vary."""
        return {}

    def __call__(self, coordinates: Mapping[str, Num], *, seldom_new: tuple[str, ...] = ()) -> Num:
        """The sum of all terms at these coordinates (floats or arrays that broadcast).

        seldom_new: coordinates that take few values; where calls are recorded, tables are kept as they are there
        """
        place = [coordinates[name] for name in self.names]
        if Expr in map(type, place):
            recalled: Num = look_up(Recalling(self, seldom_new), place)
            return recalled
        return self.at(*place)

    def at(self, *place: Num) -> Num:
        """The same at coordinates in the order of `names`."""
        place = tuple([x if isinstance(x, np.ndarray) and x.ndim else float(x) for x in place])
        varying = tuple([not isinstance(x, float) for x in place])
        if sum(varying) >= _MANY:
            points = np.broadcast(*place)
            if 1 < points.size <= MOST_POINTS:  # numpy adds up a single column in another order
                return self._packed(place, points.shape)
        if varying not in self._lookups:
            self._lookups[varying] = lookup(self.terms, self.names, varying)
        found: Num = self._lookups[varying](*place)
        return found

    def to_json(self) -> list[dict[str, Any]]:
        """Plain data for a calibration file; values are whole thousandths (0.1 % of the time)."""
        return [
            {
                "axes": list(term.axes),
                "knots": [[float(f"{x:.5g}") for x in knots] for knots in term.knots],
                "thousandths": [round(1000.0 * float(v)) for v in term.values.ravel()],
            }
            for term in self.terms
        ]

    @staticmethod
    def from_json(data: Sequence[Mapping[str, Any]]) -> Surface:
        """The surface that `to_json` wrote. Raises ConfigError when sizes do not fit."""
        terms = []
        for entry in data:
            knots = tuple(np.asarray(x, dtype=float) for x in entry["knots"])
            values, shape = np.asarray(entry["thousandths"], dtype=float) / 1000.0, tuple(len(x) for x in knots)
            if values.size != int(np.prod(shape)):
                raise ConfigError(
                    f"surface term over {entry['axes']} has {values.size} values, expected {int(np.prod(shape))}"
                )
            terms.append(Term(axes=tuple(entry["axes"]), knots=knots, values=values.reshape(shape)))
        return Surface(terms=tuple(terms))


_MANY = 4
"""Coordinates that vary together from which on a few points are sooner looked up in all tables at once."""


class Recalling:
    """A surface as a function of its coordinates in order; tables are kept as they are at the seldom new ones."""

    def __init__(self, surface: Surface, seldom_new: tuple[str, ...]) -> None:
        self.surface = surface
        self._seldom = [at for at, name in enumerate(surface.names) if name in seldom_new]
        self._often = [at for at, name in enumerate(surface.names) if name not in seldom_new]
        self._known: dict[tuple[Any, ...], Lookup] = {}

    def __call__(self, *place: Num) -> Num:
        """The sum of all tables."""
        if set(map(type, place)) != _PLAIN:
            return self.surface.at(*place)
        key = tuple([place[at] for at in self._seldom])
        found = self._known.get(key)
        if found is None:
            if len(self._known) >= _KEPT:
                self._known.clear()
            found = self._known[key] = self._under(key)
        total: Num = found(*[place[at] for at in self._often])
        return total

    def _under(self, key: tuple[Any, ...]) -> Lookup:
        names = self.surface.names
        fixed = {names[at]: value for at, value in zip(self._seldom, key, strict=True)}
        terms = [under(term, fixed) for term in self.surface.terms]
        return lookup(terms, [names[at] for at in self._often], (False,) * len(self._often))


_PLAIN = {float}

_KEPT = 4096
"""Sets of values of the seldom new coordinates."""


def as_surface(data: Surface | Sequence[Mapping[str, Any]]) -> Surface:
    """A surface from either of its forms, so that parameters work fresh from a fit and from a loaded file."""
    return data if isinstance(data, Surface) else Surface.from_json(data)
