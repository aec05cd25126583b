"""A linear that is replaced by an adapter's GEMM, with its own input or weights, if tokens have an adapter.

Which of the two runs is a number, so that a step in which no token has an adapter is the base model's.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal, cast

import numpy as np

from graphsim.ops.base import Op, OpType, Sharding
from graphsim.ops.linear import Gemm, Part, stored_bytes
from graphsim.ops.saved import Saved
from graphsim.units import Num

Remade = Literal["", "factors", "activations"]
"""Whose format the weights that an adapter computes in place of a linear's own have; "" if it computes none."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class OverriddenGemm(Gemm):
    """The linear itself: n, and the widths of its parts, are 0 if the adapter's GEMM runs.

    held: slices of the weights that are in memory, whether they run or not; () where what runs is all
    """

    overridden: ClassVar[bool] = True

    held: tuple[Part, ...] = ()

    @property
    def launches(self) -> Num:
        """No launch where it does not run."""
        return np.minimum(self.n, 1.0)

    @property
    def parameters(self) -> Num:
        """Parameters of all weights that are in memory."""
        return (0.0 if self.shared else self._outputs * self.k) + (self._outputs if self.bias else 0.0)

    @property
    def weight_storage_bytes(self) -> Num:
        """The same in their format."""
        weights = 0.0 if self.shared else stored_bytes(self.weights, self._outputs, self.k)
        return weights + (self._outputs * self.activations.bytes if self.bias else 0.0)

    @property
    def _outputs(self) -> Num:
        return sum((part.width for part in self.held), start=0.0) if self.held else self.n

    def cut(self, ways: Num) -> OverriddenGemm:
        """What is in memory is cut as what runs."""
        held = tuple(part.cut(ways) for part in self.held) if self.split is Sharding.COLUMN else self.held
        return cast("OverriddenGemm", replace(Gemm.cut(self, ways), held=held))  # type: ignore[call-arg]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class OverridingGemm(Gemm):
    """The GEMM that replaces a linear: its weights with a changed input, or rebuilt weights.

    m is 0 where it does not run. remade: in whose format its weights are made; engines may widen that of factors
    """

    adapter: bool = True
    shared: bool = True
    remade: Remade = ""

    @property
    def launches(self) -> Num:
        """No launch where it does not run."""
        return np.minimum(self.m, 1.0)

    @property
    def parameters(self) -> Num:
        """No parameters of its own: they are the linear's, or computed from the adapter's."""
        return 0.0

    @property
    def weight_storage_bytes(self) -> Num:
        """Likewise."""
        return 0.0

    @property
    def saved(self) -> Saved:
        """x where the weights are made of trained ones, for their gradient; else nothing."""
        return Saved(inputs=self.m * self.k * self.activations.bytes * float(bool(self.remade)))

    @property
    def saved_for_weights(self) -> Saved:
        """Nothing more: it owns no weights."""
        return Saved()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class OverrideResult(Op):
    """The result of the one that runs, m rows of n; nothing moves."""

    op_type: ClassVar[OpType] = OpType.ELEMENTWISE
    sharding: ClassVar[Sharding] = Sharding.LINEAR
    launched: ClassVar[bool] = False
    joins_base: ClassVar[bool] = True

    adapter: bool = True
    m: Num
    n: Num
    units: Num = 0.0
    parts: tuple[Part, ...] = ()

    @property
    def out_rows(self) -> Num | None:
        """m."""
        return self.m

    @property
    def out_elems(self) -> Num:
        """mn."""
        return self.m * self.n

    @property
    def out_parts(self) -> dict[str, Num]:
        """Elements of each named slice."""
        return {part.name: self.m * part.width for part in self.parts}

    @property
    def in_elems(self) -> Num | None:
        """As many: one of the two is empty."""
        return self.m * self.n

    @property
    def saved(self) -> Saved:
        """Nothing: the consumer of the value saves it."""
        return Saved()

    def cut(self, ways: Num) -> OverrideResult:
        """n is cut as the value is."""
        parts = tuple(part.cut(ways) for part in self.parts)
        whole = (Part(name=self.role, width=self.n, units=self.units),)
        n = sum((part.width for part in parts or (whole[0].cut(ways),)), start=0.0)
        return replace(self, n=n, parts=parts)

    def cut_tokens(self, ways: Num) -> OverrideResult:
        """A share of the rows."""
        return replace(self, m=self.m / ways)
