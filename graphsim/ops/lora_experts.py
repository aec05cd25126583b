"""An adapter's factors on the weights of experts: one pair for each expert, applied to the rows routed to it.

PEFT 0.21 keeps them as one pair of matrices of rank experts * rank (`target_parameters`). A token has one adapter, so
of several adapters each is read for the experts of its own tokens only.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import ClassVar, cast

import numpy as np

from graphsim.ops.base import OpType, Sharding, Work
from graphsim.ops.experts import ExpertGemm
from graphsim.ops.lora import LoraA, LoraAdd, LoraB, LoraGemm, LoraMerge
from graphsim.ops.saved import Saved
from graphsim.units import Num


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ExpertLoraGemm(LoraGemm):
    """A factor of an adapter for each expert.

    routing: the experts' own operation, whose rows, experts and placement these factors share
    adapted: part of the routed tokens that have an adapter
    spread: how these are spread over the adapters: (identical adapters, share of each), evenly where it is empty
    common: one factor serves all experts
    slices: pairs side by side, such as those of gate and up; A's n counts the ranks of all, B's k that of one
    sharded: whether the factor that stays whole when the weights are sharded is sharded too, A over ranks and B over
        outputs
    further: how many ways that is
    """

    routing: ExpertGemm
    adapted: Num = 1.0
    spread: tuple[tuple[float, float], ...] = ()
    common: bool = False
    slices: int = 1
    sharded: bool = False
    further: Num = 1.0

    @property
    def placement(self) -> Sharding:
        """Where the experts are."""
        return self.routing.placement

    @property
    def parameters(self) -> Num:
        """One factor for each expert on the device, or one for all."""
        return (1.0 if self.common else self.routing.experts) * self.n * self.k / self.further

    @property
    def weight_storage_bytes(self) -> Num:
        """Bytes in the adapter's format."""
        return self.parameters * self.weights.bytes

    @property
    def buffers(self) -> tuple[Num, ...]:
        """One tensor of all experts for each slice."""
        return (self.parameters / self.slices,) * self.slices

    @property
    def pairs(self) -> Num:
        """Distinct pairs of an adapter and one of this device's experts that rows reach; as expected, never above m.

        The sum over adapters of the experts that the adapter's own tokens reach. An even spread reaches most of them.
        """
        tokens, adapters = self.routing.tokens * self.adapted, np.maximum(self.adapters, 1e-9)
        pairs = np.minimum(self.adapters * self._reached(tokens / adapters), self.m)
        if not self.spread:
            return pairs
        uneven = sum((alike * self._reached(tokens * share) for alike, share in self.spread), start=0.0)
        return np.minimum(pairs, uneven)

    @property
    def factors_read(self) -> Num:
        """One for each pair; one for each adapter where all experts have it in common."""
        return np.minimum(self.adapters, self.m) if self.common else self.pairs

    def _reached(self, tokens: Num) -> Num:
        """Experts that one adapter's tokens reach; fewer than one token means a token that is not always present."""
        return np.minimum(tokens, 1.0) * self.routing.reached(np.maximum(tokens, 1.0))

    def work(self) -> Work:
        """flops = 2mnk; reads each factor that rows reach once."""
        moved = self.activations.bytes * np.minimum(self.n * self.k, 1.0) * self.m
        return Work(
            flops=2.0 * self.m * self.n * self.k,
            weight_bytes=self.factors_read * self.n * self.k * self.weights.bytes,
            input_bytes=moved * self.k,
            write_bytes=moved * self.n,
        )

    def cut(self, ways: Num) -> ExpertLoraGemm:
        """Rows go with the experts."""
        groups, inner = self.routing.ways(ways)
        share = replace(self, m=self.m / groups, routing=self.routing.cut(ways))
        return replace(share, further=self.further * inner) if self.sharded and self._stays_whole else share

    @property
    def _stays_whole(self) -> bool:
        """Whether this factor stays replicated however the experts' weights are sharded."""
        return False


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ExpertLoraA(ExpertLoraGemm, LoraA):
    """The down projections of all experts."""

    @property
    def _stays_whole(self) -> bool:
        """Whether it stays whole: the weights that it adapts are sharded over their outputs."""
        return self.routing.split is not Sharding.ROW

    def cut(self, ways: Num) -> ExpertLoraA:
        """k is cut where the experts' weights are sharded over k."""
        _, inner = self.routing.ways(ways)
        share = cast("ExpertLoraA", ExpertLoraGemm.cut(self, ways))
        return replace(share, k=self.k / inner) if self.routing.split is Sharding.ROW else share


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ExpertLoraB(ExpertLoraGemm, LoraB):
    """The up projections of all experts."""

    @property
    def in_elems(self) -> Num | None:
        """mk of each slice."""
        return self.m * self.k * self.slices

    @property
    def _stays_whole(self) -> bool:
        """Whether it stays whole: the weights that it adapts are sharded over their inputs."""
        return self.routing.split is Sharding.ROW

    def cut(self, ways: Num) -> ExpertLoraB:
        """n is cut where the experts' weights are sharded over n."""
        _, inner = self.routing.ways(ways)
        share = cast("ExpertLoraB", ExpertLoraGemm.cut(self, ways))
        return share if self.routing.split is Sharding.ROW else replace(share, n=self.n / inner)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ExpertLoraAdd(LoraAdd):
    """Adds the factors' result to the experts'."""

    routing: ExpertGemm

    @property
    def placement(self) -> Sharding:
        """Where the experts are."""
        return self.routing.placement

    def cut(self, ways: Num) -> ExpertLoraAdd:
        """Rows go with the experts, n is cut where their weights are."""
        groups, inner = self.routing.ways(ways)
        row = self.routing.split is Sharding.ROW
        share = replace(self, m=self.m / groups, rows=self.rows / groups, routing=self.routing.cut(ways))
        return share if row else replace(share, n=self.n / inner)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LoraDelta(LoraMerge):
    """W + (alpha / r) B A of all experts, computed again in every forward pass: a merge in every step.

    present: 0 where no row has an adapter: then nothing is written
    """

    op_type: ClassVar[OpType] = OpType.LORA_KERNEL

    once: bool = False
    present: Num = 1.0

    def work(self) -> Work:
        """A merge's, where there is anything to write."""
        found = LoraMerge.work(self)
        return Work(**{f.name: getattr(found, f.name) * self.present for f in fields(Work)})

    @property
    def parameters(self) -> Num:
        """Parameters of one adapter."""
        return self.copies * self.rank * (self.n + self.k)

    @property
    def weight_storage_bytes(self) -> Num:
        """Memory of one adapter's factors."""
        return self.parameters * self.factors.bytes

    @property
    def buffers(self) -> tuple[Num, ...]:
        """A and B of all experts."""
        return (self.copies * self.rank * self.k, self.copies * self.rank * self.n)

    @property
    def saved(self) -> Saved:
        """The changed weights, which are no parameters of the model: the experts' gradients ask for them."""
        return Saved(result=self.out_elems * self.activations.bytes)

    @property
    def out_elems(self) -> Num:
        """The changed weights, which live until the experts have used them."""
        return self.copies * self.n * self.k
