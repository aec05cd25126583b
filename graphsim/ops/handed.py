"""Values that the blocks of a repeat pass to each other in addition to their result."""

from __future__ import annotations

from dataclasses import dataclass, replace

from graphsim.ops.joins import Join
from graphsim.ops.linear import Part
from graphsim.units import Num


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Handed(Join):
    """Values that one block passes to the next in addition to its result; no data is moved.

    They have a stream of their own, which is free when they are there: in the next block a node without inputs, on
    that stream, stands for them. So a block may pass on several values that are ready at different times.

    parts: the values, each `width` elements
    """

    parts: tuple[Part, ...] = ()

    @property
    def in_elems(self) -> Num | None:
        """Consumers may take all of it or parts."""
        return None

    @property
    def out_parts(self) -> dict[str, Num]:
        """Elements of each value."""
        return {part.name: part.width for part in self.parts}

    def cut(self, ways: Num) -> Handed:
        """A share of the elements of each."""
        return replace(self, elems=self.elems / ways, parts=tuple(part.cut(ways) for part in self.parts))
