"""Looking up the tables of a surface: as numbers or arrays, or recorded where a coordinate is a symbol."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from graphsim.cost.surfaces.folding import folded
from graphsim.cost.surfaces.tables import Term
from graphsim.symbolic.expr import Expr, applied
from graphsim.symbolic.tables import Table, axis_of


def sum_of(terms: Iterable[Term], place: Mapping[str, Any]) -> Any:
    """The sum of tables at a position; coordinates that are numbers are evaluated first, which leaves fewer tables.

    Together with symbols, coordinates must be numbers, not arrays.
    """
    terms = tuple(terms)
    fixed = {name: float(x) for name, x in place.items() if not isinstance(x, Expr)}
    if not fixed:
        return _looked_up(terms, place)
    names = _names(terms, place)
    return _looked_up(folded(terms, fixed, names), {names[name]: x for name, x in place.items() if name not in fixed})


def _looked_up(terms: Sequence[Term], place: Mapping[str, Any]) -> Any:
    total: Any = None
    for term in terms:
        where: list[Any] = []
        for name, knots in zip(term.axes, term.knots, strict=True):
            axis, x = axis_of(knots), place[name]
            cell = applied(axis.cell, x)
            where += [cell, applied(axis.way, x, cell)]
        value = applied(Table(term.values), *where) if where else float(term.values)
        total = value if total is None else total + value
    return 0.0 if total is None else total


def _names(terms: Sequence[Term], place: Mapping[str, Any]) -> dict[str, str]:
    """A name for each coordinate; the same name for equal symbols, unless a table has both."""
    names: dict[str, str] = {}
    sharing: dict[str, set[str]] = {}
    for name, x in place.items():
        meeting = {other for term in terms if name in term.axes for other in term.axes}
        alike = (first for first, others in sharing.items() if place[first] is x and meeting.isdisjoint(others))
        names[name] = next(alike, name)
        sharing.setdefault(names[name], set()).add(name)
    return names
