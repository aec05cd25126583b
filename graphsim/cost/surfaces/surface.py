"""Small smooth correction surfaces: the fitted part of a cost form, in addition to physics.

A cost is an analytic skeleton (bytes, flops, waves, launches) times exp(surface). The surface is a
sum of terms; each term is a table over one, two or three physical coordinates (such as log2 of the
tokens), interpolated linearly between its knots and held constant beyond them, so that far outside the measured range
only the physics applies. `fitting.py` fits them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any

import numpy as np

from graphsim.cost.surfaces.look_up import sum_of
from graphsim.cost.surfaces.tables import Array, Term
from graphsim.errors import ConfigError
from graphsim.symbolic.expr import Expr, Tape
from graphsim.symbolic.program import Program
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
    def _program(self) -> Program:
        tape = Tape(literal=True)
        symbols = {name: tape.variable(name) for name in self.names}
        return Program([sum_of(self.terms, symbols)], symbols)

    def __getstate__(self) -> dict[str, Any]:
        return {"terms": self.terms}  # programs are rebuilt on demand

    def __call__(self, coordinates: Mapping[str, Num]) -> Num:
        """The sum of all terms at these coordinates: floats, arrays that broadcast, or symbols together with floats."""
        place = {name: coordinates[name] for name in self.names}
        if Expr in map(type, place.values()):
            recorded: Num = sum_of(self.terms, place)
            return recorded
        found: Num = self._program.at(*map(_plain, place.values()))[0]
        return found

    def to_json(self) -> dict[str, Any]:
        """Plain data for a calibration file; values are whole thousandths (0.1 % of the time)."""
        knots = {name: axis for term in self.terms for name, axis in zip(term.axes, term.knots, strict=True)}
        return {
            "knots": {name: [_short(x) for x in axis] for name, axis in knots.items()},
            "tables": [
                {"axes": list(term.axes), "thousandths": [round(1000.0 * float(v)) for v in term.values.ravel()]}
                for term in self.terms
            ],
        }

    @staticmethod
    def from_json(data: Any) -> Surface:
        """The surface that `to_json` wrote. Raises ConfigError for anything else."""
        try:
            knots = {str(name): np.asarray(axis, dtype=float) for name, axis in data["knots"].items()}
            tables = [(tuple(t["axes"]), np.asarray(t["thousandths"], dtype=float) / 1000.0) for t in data["tables"]]
            found = [(axes, tuple([knots[name] for name in axes]), values) for axes, values in tables]
        except (KeyError, TypeError, ValueError, AttributeError):
            raise ConfigError(
                "expected 'knots' (numbers by coordinate) and 'tables' (of 'axes' among them and 'thousandths')"
            ) from None
        return Surface(terms=tuple([_term(*parts) for parts in found]))


def _plain(x: Any) -> Any:
    return x if isinstance(x, np.ndarray) and x.ndim else float(x)


def _short(number: float) -> float:
    """A number with five digits; whole numbers without a decimal point."""
    short = float(f"{number:.5g}")
    return int(short) if short.is_integer() else short


def _term(axes: tuple[str, ...], knots: tuple[Array, ...], values: Array) -> Term:
    shape = tuple([len(axis) for axis in knots])
    if values.size != prod(shape):
        raise ConfigError(f"the table over {', '.join(axes)} has {values.size} values, expected {prod(shape)}")
    for name, axis in zip(axes, knots, strict=True):
        if axis.ndim != 1 or len(axis) < 2 or not np.isfinite(axis).all() or not (np.diff(axis) > 0).all():
            raise ConfigError(f"the knots of {name} must be at least two ascending numbers")
    if not axes or not np.isfinite(values).all():
        raise ConfigError(
            f"the table over {', '.join(axes) or 'nothing'} must hold finite numbers over some coordinate"
        )
    return Term(axes=axes, knots=knots, values=values.reshape(shape))


def as_surface(data: Surface | Mapping[str, Any]) -> Surface:
    """A surface from either of its forms, so that parameters work both directly from a fit and from a loaded file."""
    return data if isinstance(data, Surface) else Surface.from_json(data)
