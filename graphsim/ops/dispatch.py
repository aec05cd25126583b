"""The movement of tokens to the devices that hold their experts, and back."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from graphsim.ops.base import Sharding
from graphsim.ops.collectives import AllGather, AllToAll, ReduceScatter
from graphsim.units import Num


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ExchangeTokens(AllToAll):
    """Rows go to the devices that hold their experts, or come back."""

    sharding: ClassVar[Sharding] = Sharding.TOKENS
    family: ClassVar[str] = ""

    def cut(self, ways: Num) -> ExchangeTokens:
        """Each device of a tensor-parallel group exchanges the rows of its own tokens."""
        return replace(self, elems=self.elems / ways)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class GatherTokens(AllGather):
    """All tokens go to all devices, each of which takes the rows of its own experts."""

    sharding: ClassVar[Sharding] = Sharding.TOKENS

    def cut(self, ways: Num) -> GatherTokens:
        """The devices of tensor-parallel groups gather from each other too: the tokens are as many as before."""
        return self


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ScatterTokens(ReduceScatter):
    """The results of all devices' experts are added up where the tokens came from.

    own: elements of a tensor-parallel group's tokens
    """

    sharding: ClassVar[Sharding] = Sharding.TOKENS

    own: Num

    @property
    def out_elems(self) -> Num:
        """Of the device's own tokens."""
        return self.own

    def cut(self, ways: Num) -> ScatterTokens:
        """All tokens, as they were gathered; each device is left with its own."""
        return replace(self, own=self.own / ways)
