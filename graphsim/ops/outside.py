"""Values computed outside the block that reads them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

from graphsim.ops.base import Op, Sharding
from graphsim.ops.saved import Saved
from graphsim.units import Num


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class OutsideValue(Op):
    """A value computed outside the block (rotary angles, an earlier layer's result); no data is moved."""

    launched: ClassVar[bool] = False
    sharding: ClassVar[Sharding] = Sharding.WHOLE

    elems: Num

    @property
    def out_elems(self) -> Num:
        """All of it."""
        return self.elems

    @property
    def is_view(self) -> Any:
        """Whether it takes no memory of its own: it is held elsewhere."""
        return True

    @property
    def saved(self) -> Saved:
        """Nothing: the consumer of the value saves it."""
        return Saved()

    def cut(self, ways: Num) -> OutsideValue:
        """A share of the elements."""
        return replace(self, elems=self.elems / ways)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EncoderOutput(OutsideValue):
    """An encoder's result as the layers of a decoder read it: one value for all turns of a repeat; no data is moved.

    It is a node without inputs in the repeat's body; the repeat takes the encoder's result as a second input.
    """
