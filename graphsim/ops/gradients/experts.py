"""Gradients of routing, of experts' GEMMs, and of the adapters' factors on them.

m stays the number of routed rows throughout, as of the GEMMs themselves.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from graphsim.ops.base import Op, OpType, Sharding, Work
from graphsim.ops.experts import ExpertGemm
from graphsim.ops.gradients.gradient import Gradient
from graphsim.ops.gradients.vectors import VectorGradient
from graphsim.ops.linear import Gemm
from graphsim.units import Num


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ExpertInputGradient(Gradient, ExpertGemm):
    """dx = dy w^T of each expert: n are the inputs of the GEMM, k its outputs."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ExpertWeightGradient(Gradient, ExpertGemm):
    """dw = x^T dy of each expert, in one grouped kernel."""

    ends: ClassVar[bool] = True

    def work(self) -> Work:
        """flops = 2mnk; reads x and dy, writes the gradient of every expert's weights."""
        act, live = self.activations.bytes, np.minimum(self.m, 1.0)
        return Work(
            flops=2.0 * self.m * self.n * self.k,
            input_bytes=self.m * (self.n + self.k) * act,
            write_bytes=self.experts * self.n * self.k * act * live,
        )

    @property
    def placement(self) -> Sharding:
        """Where the experts are."""
        return Sharding.TOKENS if self.by_tokens else Sharding.DEALT

    @property
    def out_rows(self) -> Num | None:
        """None: the result is weights."""
        return np.minimum(self.m, 1.0) * self.experts * self.k

    @property
    def out_elems(self) -> Num:
        """Elements of all experts' weights."""
        return self.experts * self.n * self.k * np.minimum(self.m, 1.0)

    @property
    def in_elems(self) -> Num | None:
        """x and dy."""
        return self.m * (self.n + self.k)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ExpertBiasGradient(VectorGradient):
    """The gradient of each expert's bias: its rows of dy, added up. vectors: one for each expert."""

    def work(self) -> Work:
        """Each row belongs to one expert: an addition for each value read."""
        elems, act = self.rows * self.width, self.activations.bytes
        live = np.minimum(np.ceil(self.rows), 1.0)
        written = self.vectors * self.width * act * live
        return Work(vector_flops=elems, input_bytes=elems * act, write_bytes=written)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ExpertFactorInputGradient(Gradient, Gemm):
    """The gradient of what a factor takes; `routing` is that of the experts' own input gradient.

    common: one factor serves all experts
    further: how many ways a factor that stays whole is cut
    of_a: whether the factor is A
    """

    family: ClassVar[str] = "moe"

    adapter: bool = True
    routing: ExpertGemm
    common: bool = False
    further: Num = 1.0
    of_a: bool = False

    def work(self) -> Work:
        """flops = 2mnk; reads the factors of the experts that rows reach, and the rows."""
        factors = 1.0 if self.common else self.routing.hit
        moved = self.activations.bytes * np.minimum(self.n * self.k, 1.0) * self.m
        return Work(
            flops=2.0 * self.m * self.n * self.k,
            weight_bytes=factors * self.n * self.k / self.further * self.weights.bytes * np.minimum(self.m, 1.0),
            input_bytes=moved * self.k,
            write_bytes=moved * self.n,
        )

    @property
    def placement(self) -> Sharding:
        """Where the experts are."""
        return self.routing.placement

    @property
    def in_elems(self) -> Num | None:
        """Rows that have an adapter, all or a part."""
        return None

    def cut(self, ways: Num) -> ExpertFactorInputGradient:
        """Rows go with the experts; what is cut of their weights is cut here."""
        groups, inner = self.routing.ways(ways)
        share = replace(self, m=self.m / groups, routing=self.routing.cut(ways))
        if self.routing.split is Sharding.ROW:
            return share if self.of_a else replace(share, k=self.k / inner)
        return replace(share, n=self.n / inner) if self.of_a else share


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ExpertFactorGradient(ExpertFactorInputGradient):
    """The gradient of a factor of each expert: n outputs, k inputs of the factor; `routing` is the experts' own."""

    ends: ClassVar[bool] = True

    def work(self) -> Work:
        """flops = 2mnk; reads both sides' rows, writes the factors' gradient."""
        act = self.activations.bytes * np.minimum(self.n * self.k, 1.0)
        return Work(
            flops=2.0 * self.m * self.n * self.k,
            input_bytes=self.m * (self.n + self.k) * act,
            write_bytes=self.out_elems * self.weights.bytes,
        )

    @property
    def out_elems(self) -> Num:
        """One factor for each expert, or one for all."""
        factors = (1.0 if self.common else self.routing.experts) * self.n * self.k / self.further
        return factors * np.minimum(self.m, 1.0)

    @property
    def out_rows(self) -> Num | None:
        """None: the result is weights."""
        return np.minimum(self.m, 1.0) * self.k

    def cut(self, ways: Num) -> ExpertFactorGradient:
        """Rows go with the experts; the factor is cut as the experts' weights are."""
        groups, inner = self.routing.ways(ways)
        share = replace(self, m=self.m / groups, routing=self.routing.cut(ways))
        if self.routing.split is Sharding.ROW:
            return replace(share, k=self.k / inner) if self.of_a else share
        return share if self.of_a else replace(share, n=self.n / inner)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RouteBackward(Gradient, Op):
    """The gradient of a router's logits, from that of the weights of `chosen` of `experts`."""

    op_type: ClassVar[OpType] = OpType.ROUTER
    sharding: ClassVar[Sharding] = Sharding.WHOLE
    family: ClassVar[str] = "moe"

    tokens: Num
    experts: Num
    chosen: Num

    def work(self) -> Work:
        """Reads the kept softmax in fp32, writes the logits' gradient; about five steps each."""
        logits = self.tokens * self.experts
        return Work(
            vector_flops=5.0 * logits,
            input_bytes=4.0 * logits + 12.0 * self.tokens * self.chosen,
            write_bytes=logits * self.activations.bytes,
        )

    @property
    def out_elems(self) -> Num:
        """One per logit."""
        return self.tokens * self.experts

    def cut(self, ways: Num) -> RouteBackward:
        """Every device routes all its tokens."""
        return replace(self, tokens=self.tokens / ways)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RowProducts(Gradient, Op):
    """Dot products of `rows` rows of `width` with as many others: the gradient of each row's weight.

    by_tokens: whether rows come from all replicas, each of which works on its own
    """

    op_type: ClassVar[OpType] = OpType.ELEMENTWISE
    family: ClassVar[str] = "elementwise"
    follows: ClassVar[bool] = True

    rows: Num
    width: Num
    by_tokens: bool = False

    @property
    def placement(self) -> Sharding:
        """Where the rows are; of partial sums, partial sums."""
        return Sharding.TOKENS if self.by_tokens else Sharding.COLLECT

    def work(self) -> Work:
        """Reads both, writes a number for each row."""
        elems, act = self.rows * self.width, self.activations.bytes
        return Work(vector_flops=2.0 * elems, input_bytes=2.0 * elems * act, write_bytes=self.rows * act)

    @property
    def out_elems(self) -> Num:
        """One per row."""
        return self.rows

    def cut(self, ways: Num) -> RowProducts:
        """A share of the rows, as `follows` says."""
        return replace(self, rows=self.rows / ways)
