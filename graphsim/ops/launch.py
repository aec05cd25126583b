"""The host's launches of kernels outside a captured graph."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from graphsim.ops.base import HOST, Op, OpType
from graphsim.ops.saved import Saved
from graphsim.units import Num


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Launch(Op):
    """The host's launch of `times` kernels, each taking the device's eager launch time.

    called_s: additional host time in seconds: Python calls of modules and of the kernels' operations
    """

    op_type: ClassVar[OpType] = OpType.LAUNCH
    launched: ClassVar[bool] = False

    stream: str = HOST
    times: Num = 1.0
    called_s: Num = 0.0

    @property
    def out_elems(self) -> Num:
        """Nothing flows."""
        return 0.0

    @property
    def saved(self) -> Saved:
        """Nothing: no value flows."""
        return Saved()

    def cut(self, ways: Num) -> Launch:
        """Every device launches its own."""
        return self
