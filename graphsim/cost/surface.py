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

from graphsim.cost.packed import MOST_POINTS, Packed
from graphsim.cost.tables import Term, between, between_one, place, place_one
from graphsim.errors import ConfigError
from graphsim.symbolic.expr import Expr, look_up
from graphsim.units import Num


@dataclass(frozen=True, kw_only=True)
class Surface:
    """A sum of tables over named coordinates, in log units: exp of it multiplies a skeleton."""

    terms: tuple[Term, ...]

    @cached_property
    def _packed(self) -> Packed:
        return Packed(self.terms)

    def __call__(self, coordinates: Mapping[str, Num]) -> Num:
        """The sum of all terms at these coordinates (floats or arrays that broadcast)."""
        if Expr in map(type, coordinates.values()):
            names = {name for term in self.terms for name in term.axes}
            looked_up: Num = look_up(_Table(self, sorted(names)), [coordinates[name] for name in sorted(names)])
            return looked_up
        points = np.broadcast(*coordinates.values())
        if not points.ndim:
            return self.at({name: float(x) for name, x in coordinates.items()})
        if points.size == 1:  # numpy adds up a single column in another order
            return np.full(points.shape, self.at({name: np.ravel(x)[0] for name, x in coordinates.items()}))
        if points.size <= MOST_POINTS:
            return self._packed(coordinates, points.shape)
        varying = {name for name, x in coordinates.items() if np.ndim(x)}
        places: dict[str, tuple[Any, Any]] = {}
        total: Num = 0.0
        for term in self.terms:
            for name, knots, plain in zip(term.axes, term.knots, term.plain_knots, strict=True):
                if name not in places:
                    x = coordinates[name]
                    places[name] = place(x, knots) if name in varying else place_one(float(x), plain)
            of = between_one if varying.isdisjoint(term.axes) else between
            total = total + of(term, [places[name] for name in term.axes])
        return total

    def at(self, point: Mapping[str, float]) -> float:
        """The same at a single point."""
        places: dict[str, tuple[int, float]] = {}
        total = 0.0
        for term in self.terms:
            for name, knots in zip(term.axes, term.plain_knots, strict=True):
                if name not in places:
                    places[name] = place_one(point[name], knots)
            total += between_one(term, [places[name] for name in term.axes])
        return total

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


class _Table:
    """A surface as a function of coordinates in a fixed order."""

    def __init__(self, surface: Surface, names: Sequence[str]) -> None:
        self.surface, self.names = surface, names

    def __call__(self, *values: Num) -> Num:
        return self.surface(dict(zip(self.names, values, strict=True)))


def as_surface(data: Surface | Sequence[Mapping[str, Any]]) -> Surface:
    """A surface from either of its forms, so that parameters work fresh from a fit and from a loaded file."""
    return data if isinstance(data, Surface) else Surface.from_json(data)
