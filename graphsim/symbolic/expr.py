"""Numbers that record the operations on them.

An `Expr` can replace a float or an array over scenarios (law: arithmetic and numpy's elementwise functions only), so
that running the passes once yields the formula of their result. Equal formulas are one object, constants are folded and
sums kept in a normal form `constant + sum of coefficient * term`, in which a repeated layer is a coefficient. The set
of operations is closed (`operations.py`). What needs an actual number (a branch, numpy.any) raises NotRecordable, which
names the line; queries with a sound answer are in `graphsim.symbolic.questions`. Equal formulas as one object: hash
consing, Filliâtre and Conchon, ML workshop 2006.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from threading import Lock
from typing import Any

import numpy as np

from graphsim.symbolic.operations import OPERATIONS, SAME, Function
from graphsim.symbolic.operators import Operators
from graphsim.symbolic.refusal import NotRecordable, refusal
from graphsim.symbolic.signs import is_positive
from graphsim.symbolic.tables import Interpolation

__all__ = ["Expr", "NotRecordable", "Tape", "applied", "record", "weighted"]


_INF = float("inf")
_OF_NUMPY = (np.ndarray, np.generic)


class Tape:
    """All formulas of one recording, in order of creation: operands come before their users.

    literal: whether sums and products are recorded in their own order, for results equal to the last bit; otherwise
        sums are in normal form
    by_content: whether programs add the terms of its sums in the order of their contents (`content.py`)
    refused: the last unsupported use of its symbols, with file and line; kept even if the exception was swallowed
    guards: checks that depend on its symbols (`guard.py`), each once
    """

    def __init__(self, *, literal: bool = False, by_content: bool | None = None) -> None:
        self.literal = literal
        self.by_content = not literal if by_content is None else by_content
        self.nodes: list[Expr] = []
        self.refused = ""
        self.guards: dict[Any, Any] = {}
        self._known: dict[Any, Expr] = {}
        self._lock = Lock()

    def variable(self, name: str) -> Expr:
        """A number supplied at evaluation: a size, and so at least zero."""
        key = ("variable", name)
        found = self._known.get(key)
        return found if found is not None else self._node(key, None, (), frozenset((name,)))

    def apply(self, function: Function, *operands: Any) -> Expr:
        """function(operands), deduplicated with equal existing formulas; operands are formulas or plain numbers."""
        return self.applied(function, [x if type(x) is Expr else _plain(x, operands) for x in operands])

    def applied(self, function: Function, operands: Sequence[Any]) -> Expr:
        """The same of operands that are formulas or numbers of Python."""
        key = (function, *[x.serial if type(x) is Expr else (x.__class__, x) for x in operands])
        found = self._known.get(key)
        return found if found is not None else self._node(key, function, tuple(operands), _free(operands))

    def linear(self, constant: float, terms: dict[int, float]) -> Any:
        """constant + sum of coefficient * node; a plain number if no term is left."""
        return self.ordered(constant, tuple(sorted([term for term in terms.items() if term[1] != 0.0])))

    def ordered(self, constant: float, ordered: tuple[tuple[int, float], ...]) -> Any:
        """The same of terms in the order of their nodes, none of them 0."""
        if not ordered or abs(constant) == _INF:
            return constant
        if constant == 0.0 and len(ordered) == 1 and ordered[0][1] == 1.0:
            return self.nodes[ordered[0][0]]
        key = ("linear", constant, ordered)
        found = self._known.get(key)
        if found is not None:
            return found
        operands = tuple([self.nodes[serial] for serial, _ in ordered])
        return self._node(key, None, operands, _free(operands), (constant, ordered))

    def _node(
        self, key: Any, function: Function | None, operands: tuple[Any, ...], free: frozenset[str], linear: Any = None
    ) -> Expr:
        name = key[1] if key[0] == "variable" else ""
        with self._lock:  # threads that record on one tape
            made = self._known.get(key)
            if made is None:
                made = self._known[key] = Expr(self, len(self.nodes), function, operands, free, linear, name)
                self.nodes.append(made)
        return made


def applied(function: Function, *operands: Any) -> Any:
    """function(operands), recorded if one of them is a symbol: a look-up in a table, or a call."""
    tape = next((operand.tape for operand in operands if isinstance(operand, Expr)), None)
    return function(*operands) if tape is None else tape.apply(function, *operands)


def weighted(constant: float, parts: Sequence[tuple[float, Any]]) -> Any:
    """constant + sum of weight * operand, of formulas and numbers; one operation, in normal form unless literal."""
    tape: Tape | None = None
    total: dict[int, float] = {}
    for weight, operand in parts:
        if type(operand) is not Expr:
            constant = constant + weight * operand
            continue
        tape = operand.tape
        more, terms = (0.0, ((operand.serial, 1.0),)) if tape.literal else _normal(operand)
        constant = constant + weight * more
        for serial, coefficient in terms:
            total[serial] = total.get(serial, 0.0) + weight * coefficient
    return constant if tape is None else tape.linear(constant, total)


def _plain(value: Any, operands: Iterable[Any]) -> Any:
    """A plain number among operands that include symbols."""
    if isinstance(value, _OF_NUMPY):
        if value.ndim:
            raise refusal("an array meets a symbol", operands)
        return value.item()
    return value


def _free(operands: Iterable[Any]) -> frozenset[str]:
    free: frozenset[str] = frozenset()
    for operand in operands:
        if type(operand) is Expr and operand.free is not free and not operand.free <= free:
            free = operand.free if free <= operand.free else free | operand.free
    return free


def _refused(what: str) -> Function:
    def method(self: Expr, *_args: Any, **_options: Any) -> Any:
        raise refusal(f"{what} of a symbol", [self])

    return method


def record(function: Function, *operands: Any) -> Any:
    """function(operands) with at least one symbol, in normal form if it is a sum, a product or a maximum.

    Raises NotRecordable for a function that formulas do not support.
    """
    rule = _RULES.get(function)
    if rule is None:
        function = SAME.get(function, function)
        if function not in OPERATIONS:
            raise refusal(f"numpy.{function.__name__} of a symbol", operands)
    tape: Any = None
    plain = []
    for operand in operands:
        if type(operand) is Expr:
            tape = operand.tape
            plain.append(operand)
        else:
            plain.append(_plain(operand, operands))
    found = None if rule is None or (tape.literal and function in _REORDERED) else rule(tape, *plain)
    return tape.applied(function, plain) if found is None else found


class Expr(Operators):
    """One recorded formula.

    free: names of the variables that it depends on; linear: its normal form if it is a sum
    positive: known to be at least zero, as sizes and times are
    """

    __slots__ = ("content", "free", "function", "linear", "name", "operands", "positive", "serial", "tape")
    shape: tuple[int, ...] = ()
    ndim = 0
    dtype = np.dtype(float)

    def __init__(
        self,
        tape: Tape,
        serial: int,
        function: Function | None,
        operands: tuple[Any, ...],
        free: frozenset[str],
        linear: tuple[float, tuple[tuple[int, float], ...]] | None,
        name: str,
    ) -> None:
        self.tape, self.serial, self.function, self.operands = tape, serial, function, operands
        self.free, self.linear, self.name = free, linear, name
        self.content: int | None = None
        self.positive = is_positive(function, operands, linear)

    def __repr__(self) -> str:
        return self.name or f"<formula of {', '.join(sorted(self.free))}>"

    def __bool__(self) -> bool:
        raise refusal("a branch depends on a symbol", [self])

    __float__, __int__, __complex__ = map(_refused, ("float()", "int()", "complex()"))
    __index__, __iter__, __len__ = map(_refused, ("an index made", "a loop over the parts", "the length"))
    __round__, __trunc__, __hash__ = map(_refused, ("round()", "trunc()", "a look-up by the value"))
    __floor__, __ceil__, __array__ = map(_refused, ("math.floor()", "math.ceil()", "an array made"))
    __str__, __format__ = map(_refused, ("str()", "a text made"))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or not hasattr(np.float64, name):
            raise AttributeError(f"a symbol has no attribute '{name}'")
        raise refusal(f".{name} of a symbol", [self])

    def __getitem__(self, index: Any) -> Expr:
        if index != ():
            raise refusal("a part of a symbol", [self])
        return self

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **options: Any) -> Any:
        if method != "__call__" or options:
            raise refusal(f"numpy.{ufunc.__name__}.{method} of a symbol", [self])
        return record(ufunc, *inputs)

    def __array_function__(self, function: Function, _types: Any, args: Any, options: Any) -> Any:
        handler = _ARRAY_FUNCTIONS.get(function)
        if handler is None:
            raise refusal(f"numpy.{function.__name__} of a symbol", [self])
        return handler(*args, **options)

    _done = staticmethod(record)


Terms = tuple[tuple[int, float], ...]
"""Coefficients of a sum by the serial numbers of their terms, in ascending order."""

Normal = tuple[float, Terms]
"""A sum: its constant and its terms."""


def _normal(operand: Any) -> Normal:
    if type(operand) is not Expr:
        return float(operand), ()
    return operand.linear or (0.0, ((operand.serial, 1.0),))


def _at_least(x: Normal, y: Normal, nodes: Sequence[Expr]) -> bool:
    """Whether x >= y follows from the known signs of their terms."""
    (constant, terms), (less, others) = x, y
    if constant < less:
        return False
    more = dict(terms)
    for serial, c in others:
        more[serial] = more.get(serial, 0.0) - c
    return all(c == 0.0 or (c > 0.0 and nodes[serial].positive) for serial, c in more.items())


def _sum(tape: Tape, x: Any, y: Any, sign: float = 1.0) -> Any:
    if type(y) is not Expr:
        constant, terms = _normal(x)
        return tape.ordered(constant + sign * float(y), terms)
    (constant, terms), (more, others) = _normal(x), _normal(y)
    total = dict(terms)
    for serial, coefficient in others:
        total[serial] = total.get(serial, 0.0) + sign * coefficient
    return tape.linear(constant + sign * more, total)


def _difference(tape: Tape, x: Any, y: Any) -> Any:
    return _sum(tape, x, y, -1.0)


def _product(tape: Tape, x: Any, y: Any) -> Any:
    if isinstance(x, Expr) and isinstance(y, Expr):
        return tape.apply(np.multiply, *sorted((x, y), key=lambda operand: operand.serial))
    factor, symbol = (y, x) if isinstance(x, Expr) else (x, y)
    factor = float(factor)
    constant, terms = symbol.linear or (0.0, ((symbol.serial, 1.0),))
    scaled = tuple([(serial, c * factor) for serial, c in terms if c * factor != 0.0])
    return 0.0 if factor == 0.0 else tape.ordered(constant * factor, scaled)


def _quotient(_tape: Tape, x: Any, y: Any) -> Any:
    """Exact simplifications only: division by a constant stays a division, so that whole numbers stay whole."""
    if not isinstance(y, Expr) and y == 1:
        return x
    return 0.0 if not isinstance(x, Expr) and x == 0 else None


def _extreme(neutral: float) -> Function:
    function = np.maximum if neutral < 0 else np.minimum

    def rule(tape: Tape, x: Any, y: Any) -> Any:
        if x is y:
            return x
        for one, other in ((x, y), (y, x)):
            if not isinstance(one, Expr) and abs(one) == np.inf:
                return other if one == neutral else one
        one, other = _normal(x), _normal(y)
        if _at_least(one, other, tape.nodes):
            return x if neutral < 0 else y
        if _at_least(other, one, tape.nodes):
            return y if neutral < 0 else x
        return tape.apply(function, *sorted((x, y), key=lambda o: o.serial if isinstance(o, Expr) else -1))

    return rule


def _decided(answer: bool) -> Function:
    """The value of a conjunction or disjunction that one operand decides."""
    return lambda _tape, x, y: answer if x is answer or y is answer else None


_RULES: dict[Function, Function] = {
    np.logical_and: _decided(answer=False), np.logical_or: _decided(answer=True),
    np.add: _sum, np.subtract: _difference, np.multiply: _product, np.true_divide: _quotient,
    np.maximum: _extreme(-np.inf), np.minimum: _extreme(np.inf),
}  # fmt: skip

_REORDERED = frozenset({np.add, np.subtract, np.multiply})
"""Functions whose normal form rounds in a different order."""


def _where(condition: Any, x: Any, y: Any) -> Any:
    if not isinstance(condition, Expr):
        chosen = x if _plain(np.asarray(condition), (x, y)) else y
        return chosen if isinstance(chosen, Expr) else np.float64(chosen)
    return x if x is y else condition.tape.apply(np.where, condition, x, y)


def _clip(x: Any, least: Any, most: Any) -> Any:
    return np.minimum(np.maximum(x, least), most)


def _interp(x: Any, knots: Any, values: Any, *ends: Any, **named_ends: Any) -> Any:
    if not isinstance(x, Expr):
        table = [part if isinstance(part, list | tuple) else (part,) for part in (knots, values)]
        raise refusal("numpy.interp over knots that are symbols", [entry for part in table for entry in part])
    if named_ends.pop("period", None) is not None:
        raise refusal("numpy.interp with a period of a symbol", [x])
    return x.tape.apply(Interpolation(knots, values, *ends, **named_ends), x)


_ARRAY_FUNCTIONS: dict[Function, Function] = {
    np.where: _where,
    np.clip: _clip,
    np.interp: _interp,
    np.ndim: lambda _: 0,
    np.size: lambda _: 1,
}
"""Array functions that are supported because a symbol is a single number."""
