"""Checks as data: a condition over numbers, with its error message and exception.

If the numbers are symbols, the condition is a formula like any other. So inputs outside a traced formula's domain are
refused wherever the formula is
evaluated: for one scenario, for arrays of them, and in a page.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphsim.errors import ConfigError, GraphsimError
from graphsim.symbolic.expr import Expr


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Figure:
    """A number within a sentence.

    exact: print all its digits rather than six; whole numbers never have a point
    """

    value: Any
    exact: bool = False

    def text(self, broken: Any, row: int) -> str:
        """The number of one scenario, counted along the flattened `broken`."""
        number = float(_at(self.value, broken, row))
        if math.isfinite(number) and number == round(number):
            return f"{number:.0f}"
        return repr(number) if self.exact else f"{number:g}"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Guard:
    """A check.

    rule: its name
    about: the argument that breaks it
    broken: whether it is broken: one boolean, an array of them over scenarios, or a formula
    sentence: texts and numbers that together say what is wrong and what is allowed
    error: the exception to raise
    """

    rule: str
    about: str
    broken: Any
    sentence: tuple[str | Figure, ...]
    error: type[GraphsimError] = ConfigError

    @property
    def any(self) -> bool:
        """Whether it is broken in any scenario. Raises NotRecordable for a formula."""
        return bool(self.broken.any() if isinstance(self.broken, np.ndarray) else self.broken)

    @property
    def numbers(self) -> list[Any]:
        """The numbers in the sentence, in order."""
        return [part.value for part in self.sentence if isinstance(part, Figure)]

    def text(self, row: int | None = None) -> str:
        """The sentence for one scenario that breaks it, an index into the flattened `broken`; by default the first."""
        at = int(np.flatnonzero(np.ravel(self.broken))[0]) if row is None else row
        return "".join(part if isinstance(part, str) else part.text(self.broken, at) for part in self.sentence)

    def texts(self, shape: tuple[int, ...]) -> NDArray[np.object_]:
        """The sentence for each scenario that breaks it, and "" for all others."""
        found = np.full(shape, "", dtype=object)
        broken = np.broadcast_to(np.asarray(self.broken, dtype=bool), shape)
        if not broken.any():
            return found
        whole = self._with([np.broadcast_to(number, shape) for number in self.numbers], broken)
        rows = np.flatnonzero(broken)
        if not whole.numbers:
            found[broken] = whole.text(int(rows[0]))
            return found
        columns = np.stack([number[broken] for number in whole.numbers])
        alike = np.unique(columns, axis=1, return_index=True, return_inverse=True)
        sentences = np.array([whole.text(int(rows[first])) for first in alike[1]], dtype=object)
        found[broken] = sentences[np.ravel(alike[2])]
        return found

    def at(self, broken: Any, numbers: Iterable[Any]) -> Guard:
        """The same with values in place of its formulas."""
        return self._with(numbers, broken)

    def _with(self, numbers: Iterable[Any], broken: Any) -> Guard:
        given = iter(numbers)
        sentence = [part if isinstance(part, str) else replace(part, value=next(given)) for part in self.sentence]
        return replace(self, sentence=tuple(sentence), broken=broken)


def _at(value: Any, broken: Any, row: int) -> Any:
    """The value in one scenario."""
    if not isinstance(value, np.ndarray) or not value.ndim:
        return value
    return np.broadcast_to(value, np.broadcast_shapes(np.shape(broken), value.shape)).flat[row]


def require(guard: Guard) -> None:
    """Raise the guard's exception if it is broken; if its condition is a formula, store it on the formula's tape."""
    if not isinstance(guard.broken, Expr):
        if guard.any:
            raise guard.error(guard.text())
        return
    parts = [part if isinstance(part, str) else _key(part.value) for part in guard.sentence]
    guard.broken.tape.guards.setdefault((guard.rule, guard.broken.serial, *parts), guard)


def _key(number: Any) -> Any:
    return ("formula", number.serial) if isinstance(number, Expr) else number
