"""Values joined into one, and parts of a value; no data is moved."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from graphsim.ops.base import Op, Sharding
from graphsim.ops.saved import Saved
from graphsim.units import Num


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Join(Op):
    """Several values as one; no data is moved."""

    launched: ClassVar[bool] = False

    elems: Num

    @property
    def out_elems(self) -> Num:
        """All of them together."""
        return self.elems

    @property
    def in_elems(self) -> Num | None:
        """All of them together."""
        return self.elems

    @property
    def saved(self) -> Saved:
        """Nothing: the consumer of the value saves it."""
        return Saved()

    def cut(self, ways: Num) -> Join:
        """A share of the elements."""
        return replace(self, elems=self.elems / ways)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Slice(Join):
    """A device's own part of a replicated value; no data is moved.

    parts: number of such parts; 0 = not stated
    """

    sharding: ClassVar[Sharding] = Sharding.DEAL_OUT

    parts: Num = 0.0

    @property
    def is_view(self) -> Any:
        """If it is the only part; one of several has its own memory, so that the whole value may be freed."""
        return np.equal(self.parts, 1.0)

    @property
    def in_elems(self) -> Num | None:
        """Any size: it is a part of its input."""
        return None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SomeRows(Join):
    """Some rows of a value, on each device that holds it or a part of it; no data is moved."""

    follows: ClassVar[bool] = True

    @property
    def in_elems(self) -> Num | None:
        """Any size: they are rows of its input."""
        return None
