"""The movement of tokens to the devices that hold their experts, and back."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from graphsim.ops.base import Sharding
from graphsim.ops.collectives import AllGather, AllToAll, ReduceScatter
from graphsim.units import Num

EXCHANGES = ("low_latency", "normal", "elastic_decode", "elastic_prefill", "two_sided", "one_sided")
"""Measured specialised kernels: those of both versions of DeepEP, and TensorRT-LLM's over NVLink."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ExchangeTokens(AllToAll):
    """Rows go to the devices that hold their experts, or come back.

    kernels: the specialised kernels that move them, a name of EXCHANGES; "" where a plain all-to-all does
    tokens, width: of the device's own rows
    chosen: how many of all `experts` each goes to
    there: on its way to them
    """

    sharding: ClassVar[Sharding] = Sharding.TOKENS
    family: ClassVar[str] = "expert_exchange"

    kernels: str = ""
    tokens: Num = 0.0
    width: Num = 0.0
    chosen: Num = 0.0
    experts: Num = 0.0
    there: bool = True

    def cut(self, ways: Num) -> ExchangeTokens:
        """Each device of a tensor-parallel group exchanges the rows of its own tokens."""
        return replace(self, elems=self.elems / ways, tokens=self.tokens / ways)


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
        """Elements of the device's own tokens."""
        return self.own

    def cut(self, ways: Num) -> ScatterTokens:
        """All tokens, as they were gathered; each device ends with its own."""
        return replace(self, own=self.own / ways)
