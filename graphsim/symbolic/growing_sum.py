"""The sum of a formula over a range of whole numbers of one variable, exact to rounding where possible.

Between the kinks of a formula a few values determine the sum (`quadrature.py`), and kinks are found by bisection on the
piece number (`pieces.py`): a hundred evaluations instead of thousands, so that 10⁸ steps cost as much as 10⁵. A formula
that calls opaque functions is summed step by step. If that, or frequent kinks, would take more than some hundred
thousand values, they are sampled (`sampled.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from graphsim.symbolic.degree import is_linear
from graphsim.symbolic.expr import Expr, Tape
from graphsim.symbolic.kernel import Opaque
from graphsim.symbolic.opened import level_in, opened
from graphsim.symbolic.pieces import piece_of
from graphsim.symbolic.program import Program, needed
from graphsim.symbolic.quadrature import rule, rules
from graphsim.symbolic.sampled import LONG, STRATA, long_sum, places_in

Array = npt.NDArray[np.float64]
Rows = npt.NDArray[np.intp]

_FEW = 24
"""Length up to which a range is summed term by term."""

_AT_ONCE = 1024
"""The same for a single sum: one large array is faster than several small ones."""

_BUSY = 64
"""The same for a range with kinks on both sides of its middle."""

_TURNS = 5
"""How often ranges are split at kinks before they count as having many."""

_NODES, _STRETCH = 6, 1.3
"""Evaluations per smooth range, and its greatest length as the ratio of its ends: within it powers, logarithms and
smooth maxima differ from polynomials of degree 11 by 1e-12 at most."""

_SAMPLED = 32
"""Number of ranges that are sampled together."""

_CHUNK, _BLOCK = 2**14, 2**13
"""Values per array in term-by-term sums, and sums computed together, so that arrays stay in a core's cache."""


@dataclass(frozen=True, slots=True)
class _Stretches:
    """Ranges of whole numbers from `low` to `high`, inclusive, of the sums `row`."""

    row: Rows
    low: Array
    high: Array

    def where(self, chosen: npt.NDArray[np.bool_]) -> _Stretches:
        return _Stretches(self.row[chosen], self.low[chosen], self.high[chosen])


class GrowingSum:
    """Sums of a formula over a variable, for single numbers and for arrays of them.

    in_pieces: whether all kinks of the formula are known; nodes: evaluations per smooth piece formula, piece_formula:
        the summand, and its piece number, on a separate tape
    level_formulas: operands of the formula that do not depend on the variable
    value, piece: programs of the summand and of its piece number, given these operands
    """

    def __init__(self, formula: Expr, variable: str) -> None:
        copy = opened(formula, variable, Tape(literal=True, by_content=True))
        self.variable, self.formula, self.level_formulas = variable, copy, level_in(copy, variable)
        level = {f"level {node.serial}": node for node in self.level_formulas}
        self._names, self._level = tuple(level), Program(self.level_formulas)
        self.inputs = self._level.inputs
        self.in_pieces = not any(isinstance(node.function, Opaque) for node in needed([copy]))
        self.nodes = 1 if is_linear(copy, variable) else _NODES
        self.piece_formula = piece_of(copy, variable)
        self.value, self.piece = Program([copy], level), Program([self.piece_formula], level)

    def bound(self, known: Mapping[str, Any]) -> GrowingSum:
        """The same at known values of some variables."""
        other = copy(self)
        other._level = self._level.bound(known)
        other.inputs = other._level.inputs
        return other

    def __call__(self, inputs: Mapping[str, Any], first: Any, count: Any) -> Any:
        """The sum over `count` whole numbers from `first` on; 0 for none. A float, or an array if any input is one.

        inputs: values of all variables except the running one, numbers or arrays that broadcast
        """
        given = [inputs[name] for name in self.inputs]
        level = dict(zip(self._names, self._level.at(*given), strict=True))
        if not any(isinstance(x, np.ndarray) for x in (first, count, *given)):
            return self._single(level, float(first), float(count))
        shape = np.broadcast_shapes(*map(np.shape, (first, count, *given)))
        flat = {
            name: np.broadcast_to(x, shape).ravel() if isinstance(x, np.ndarray) else x for name, x in level.items()
        }
        start, many = (np.broadcast_to(np.asarray(x, dtype=float), shape).ravel() for x in (first, count))
        return np.concatenate([
            _Sums(self, {name: x[some] if isinstance(x, np.ndarray) else x for name, x in flat.items()})
            .total(start[some], many[some])
            for some in (slice(at, at + _BLOCK) for at in range(0, len(start), _BLOCK))
        ]).reshape(shape)  # fmt: skip

    def _single(self, level: dict[str, Any], first: float, count: float) -> float:
        if self.in_pieces and count > _AT_ONCE:
            return float(_Sums(self, level).total(np.array([first]), np.array([count]))[0])
        if count > LONG:
            return long_sum(lambda places: self.value({**level, self.variable: places})[0], first, count)
        if self.in_pieces and count > _FEW and (smooth := self._smooth(level, first, count)) is not None:
            return smooth
        total, done = 0.0, 0.0
        while done < count:
            size = min(count - done, float(_CHUNK))
            level[self.variable] = np.arange(first + done, first + done + size)
            total += float(self.value(level)[0].sum())
            done += size
        return total

    def _smooth(self, level: dict[str, Any], first: float, count: float) -> float | None:
        """The sum over a range within one smooth piece, from a few values; None if it is not smooth."""
        last, middle = first + count - 1.0, first + (count - 1.0) / 2.0
        if self.nodes > 1 and last > _tame(first):
            return None
        here = self._number(self.piece, level, first)
        if any(self._number(self.piece, level, place) != here for place in (last, middle)):
            return None
        return sum(weight * self._number(self.value, level, middle + node) for node, weight in rule(count, self.nodes))

    def _number(self, program: Program, level: dict[str, Any], place: float) -> float:
        level[self.variable] = place
        found: float = program.at(*[level[name] for name in program.inputs])[0]
        return found


class _Sums:
    """Many sums at once; all ranges of a kind are computed together."""

    def __init__(self, of: GrowingSum, level: Mapping[str, Any]) -> None:
        self._of, self._level = of, level
        self._found = np.zeros(0)

    def total(self, first: Array, count: Array) -> Array:
        """The sums over `count` whole numbers from `first` on."""
        self._found, rows = np.zeros(len(count)), np.flatnonzero(count > 0.0)
        todo = _Stretches(rows, first[rows], first[rows] + count[rows] - 1.0)
        if not self._of.in_pieces:
            self._one_by_one(self._few_enough(_cut(todo, _tame)) if np.any(count > LONG) else todo)
            return self._found
        if self._of.nodes > 1:
            todo = _cut(todo, _tame)
        for _ in range(_TURNS):
            todo = self._at_kinks(self._left(todo, _FEW))
        todo = self._few_enough(todo)
        while len(todo.row):
            todo = _halved(self._left(todo, _AT_ONCE))
        return self._found

    def _few_enough(self, todo: _Stretches) -> _Stretches:
        """Sample the ranges of sums with too many remaining numbers; the others are returned."""
        lengths = np.bincount(todo.row, todo.high - todo.low + 1.0, len(self._found))
        many = (lengths > LONG)[todo.row] & (todo.high - todo.low >= 2 * STRATA)
        long = todo.where(many)
        for at in range(0, len(long.row), _SAMPLED):
            some = slice(at, at + _SAMPLED)
            row, (places, each) = long.row[some], places_in(long.low[some], long.high[some])
            values = self._at(self._of.value, np.broadcast_to(row, places.shape), places)[0]
            self._add(row, np.broadcast_to(values, places.shape).sum(axis=0) * each)
        return todo.where(~many)

    def _one_by_one(self, todo: _Stretches) -> None:
        """Sum some ranges term by term, a few thousand values at a time."""
        if not len(todo.row):
            return
        todo = _cut(todo, lambda low: low + (_CHUNK - 1.0))
        lengths = (todo.high - todo.low + 1.0).astype(np.intp)
        chunks = np.cumsum(lengths) // _CHUNK
        for group in np.split(np.arange(len(lengths)), np.flatnonzero(np.diff(chunks)) + 1):
            length, before = lengths[group], np.cumsum(lengths[group]) - lengths[group]
            places = np.repeat(todo.low[group] - before, length) + np.arange(length.sum())
            rows = np.repeat(todo.row[group], length)
            self._add(rows, np.broadcast_to(self._at(self._of.value, rows, places)[0], places.shape))

    def _left(self, todo: _Stretches, few: int) -> _Stretches:
        """Sum short ranges, ranges of one piece, and short ones of several pieces; the others are returned."""
        short = todo.high - todo.low < few
        self._one_by_one(todo.where(short))
        todo = todo.where(~short)
        if not len(todo.row):
            return todo
        pieces = [self._piece(todo.row, place) for place in (todo.low, _middle(todo), todo.high)]
        changes = np.add(pieces[0] != pieces[1], pieces[1] != pieces[2], dtype=int)
        self._by_rule(todo.where(changes == 0))
        busy = (changes == 2) & (todo.high - todo.low < _BUSY)
        self._one_by_one(todo.where(busy))
        return todo.where((changes > 0) & ~busy)

    def _by_rule(self, todo: _Stretches) -> None:
        """Sum ranges of one piece each."""
        if not len(todo.row):
            return
        nodes, weights = rules(todo.high - todo.low + 1.0, self._of.nodes)
        places = _middle(todo) + nodes
        values = np.broadcast_to(self._at(self._of.value, todo.row, places)[0], places.shape)
        self._add(todo.row, (weights * values).sum(axis=0))

    def _add(self, rows: Rows, values: Array) -> None:
        self._found += np.bincount(rows, values, len(self._found))

    def _at_kinks(self, todo: _Stretches) -> _Stretches:
        """Both parts of each range, split where its first piece ends."""
        if not len(todo.row):
            return todo
        here, each = self._piece(todo.row, todo.low), np.arange(len(todo.row))
        same, other = todo.low.copy(), todo.high.copy()
        middle = np.floor(_middle(todo))
        while True:
            alike = self._piece(todo.row[each], middle) == here[each]
            same[each[alike]], other[each[~alike]] = middle[alike], middle[~alike]
            each = each[other[each] - same[each] > 1.0]
            if not len(each):
                return _joined(_Stretches(todo.row, todo.low, same), _Stretches(todo.row, same + 1.0, todo.high))
            middle = np.floor((same[each] + other[each]) / 2.0)

    def _piece(self, rows: Rows, places: Array) -> Array:
        return np.broadcast_to(self._at(self._of.piece, rows, places)[0], places.shape)

    def _at(self, program: Program, rows: Rows, places: Array) -> list[Any]:
        level = {name: x[rows] if isinstance(x, np.ndarray) else x for name, x in self._level.items()}
        given = {**level, self._of.variable: places}
        return program.at(*[given[name] for name in program.inputs])


def _middle(todo: _Stretches) -> Array:
    return (todo.low + todo.high) / 2.0


def _halved(todo: _Stretches) -> _Stretches:
    middle = np.floor(_middle(todo))
    return _joined(_Stretches(todo.row, todo.low, middle), _Stretches(todo.row, middle + 1.0, todo.high))


def _cut(todo: _Stretches, longest: Callable[[Array], Array]) -> _Stretches:
    """The same ranges, split so that none exceeds `longest` times its low end."""
    done: list[_Stretches] = []
    while len(todo.row):
        end = np.minimum(todo.high, longest(todo.low))
        done.append(_Stretches(todo.row, todo.low, end))
        rest = end < todo.high
        todo = _Stretches(todo.row[rest], end[rest] + 1.0, todo.high[rest])
    return _joined(*done) if done else todo


def _tame(low: Any) -> Any:
    """The end of the longest smooth range from `low`, a number or an array."""
    return np.maximum(np.floor(_STRETCH * low), low + (_FEW - 1.0))


def _joined(*parts: _Stretches) -> _Stretches:
    return _Stretches(*[np.concatenate([getattr(part, name) for part in parts]) for name in ("row", "low", "high")])
