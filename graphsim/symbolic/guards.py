"""The guards of traced formulas, evaluated together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from graphsim.symbolic.expr import Expr
from graphsim.symbolic.program import Program

if TYPE_CHECKING:
    from graphsim.symbolic.guard import Guard


class Guards:
    """The guards of some formulas, evaluated together: for single numbers, or for arrays that broadcast."""

    def __init__(self, guards: Iterable[Guard]) -> None:
        self.guards = tuple([guard for guard in guards if isinstance(guard.broken, Expr) or guard.any])
        self._conditions = Program([guard.broken for guard in self.guards])

    @property
    def formulas(self) -> list[Any]:
        """The condition of each guard, followed by the numbers of all sentences."""
        return [*[guard.broken for guard in self.guards], *self._told]

    @property
    def _told(self) -> list[Any]:
        return [number for guard in self.guards for number in guard.numbers]

    @cached_property
    def _numbers(self) -> Program:
        return Program(self._told)

    def broken(self, inputs: Mapping[str, Any]) -> list[Guard]:
        """The guards that any scenario breaks, in order, with values in place of formulas.

        Raises KeyError for a missing variable.
        """
        answers = self._conditions(inputs)
        if not any(map(np.any, answers)):
            return []
        told = iter(self._numbers(inputs))
        found = [
            guard.at(answer, [next(told) for _ in guard.numbers])
            for guard, answer in zip(self.guards, answers, strict=True)
        ]
        return [guard for guard in found if guard.any]

    def require(self, inputs: Mapping[str, Any]) -> None:
        """Raise the exception of the first broken guard, with the sentence for the first scenario that breaks it."""
        for guard in self.broken(inputs):
            raise guard.error(guard.text())

    def sentences(self, inputs: Mapping[str, Any]) -> NDArray[np.object_]:
        """For each scenario the sentence of the first guard that it breaks, or "".

        The array has the broadcast shape of the inputs.
        """
        shape = np.broadcast_shapes(*map(np.shape, inputs.values()))
        found = np.full(shape, "", dtype=object)
        for guard in self.broken(inputs):
            found = np.where(found == "", guard.texts(shape), found)
        return found
