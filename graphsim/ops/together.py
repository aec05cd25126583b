"""Kernels that run as one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import reduce
from operator import add
from typing import ClassVar

from graphsim.ops.base import Op, OpType, Work
from graphsim.ops.saved import Saved
from graphsim.units import Num


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Together(Op):
    """Kernels that run concurrently on one device: one op with the sum of their work."""

    op_type: ClassVar[OpType] = OpType.TOGETHER

    parts: tuple[Op, ...]

    def work(self) -> Work:
        """The sum of the parts' work."""
        return reduce(add, (part.work() for part in self.parts))

    @property
    def parameters(self) -> Num:
        """The sum of the parts' weights."""
        return sum((part.parameters for part in self.parts), start=0.0)

    @property
    def weight_storage_bytes(self) -> Num:
        """The sum of the parts' weights in bytes."""
        return sum((part.weight_storage_bytes for part in self.parts), start=0.0)

    @property
    def trainable_parameters(self) -> Num:
        """The sum of the parts' trained weights."""
        return sum((part.trainable_parameters for part in self.parts), start=0.0)

    @property
    def saved(self) -> Saved:
        """What each part saves."""
        return reduce(add, (part.saved for part in self.parts))

    @property
    def saved_for_weights(self) -> Saved:
        """What each part saves."""
        return reduce(add, (part.saved_for_weights for part in self.parts))

    @property
    def out_elems(self) -> Num:
        """Elements of the last part's result."""
        return self.parts[-1].out_elems

    def cut(self, ways: Num) -> Together:
        """Each part is cut."""
        return replace(self, parts=tuple(part.cut(ways) for part in self.parts))
