"""Operations that LoRA variants add to experts, for the rows routed to them: vectors, averages of inputs."""

from __future__ import annotations

from dataclasses import dataclass, replace

from graphsim.ops.base import Sharding
from graphsim.ops.experts import ExpertGemm
from graphsim.ops.lora_variants import GroupPool, VectorScale
from graphsim.units import Num


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ExpertVectorScale(VectorScale):
    """One vector for all experts.

    outputs: whether it scales the experts' outputs, which may be sharded, or ranks
    """

    routing: ExpertGemm
    outputs: bool = False

    @property
    def placement(self) -> Sharding:
        """Where the experts are."""
        return self.routing.placement

    def cut(self, ways: Num) -> ExpertVectorScale:
        """Rows go with the experts; columns are cut where the experts' weights are sharded over outputs."""
        groups, inner = self.routing.ways(ways)
        share = replace(self, elems=self.elems / groups, routing=self.routing.cut(ways))
        if self.routing.split is Sharding.ROW or not self.outputs:
            return share
        return replace(share, elems=share.elems / inner, width=self.width / inner)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ExpertGroupPool(GroupPool):
    """Averages over the inputs of experts."""

    routing: ExpertGemm

    @property
    def placement(self) -> Sharding:
        """Where the experts are."""
        return self.routing.placement

    def cut(self, ways: Num) -> ExpertGroupPool:
        """Rows go with the experts; inputs are cut where the experts' weights are."""
        groups, inner = self.routing.ways(ways)
        share = replace(self, m=self.m / groups, routing=self.routing.cut(ways))
        return replace(share, k=self.k / inner) if self.routing.split is Sharding.ROW else share
