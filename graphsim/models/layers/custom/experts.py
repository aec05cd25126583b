"""Entries of a mixture of experts, each one operation of `graphsim.models.layers.moe`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from graphsim.graph import Value
from graphsim.models.layers.base import Scope
from graphsim.models.layers.custom.node import Node
from graphsim.ops import ExpertActivation, ExpertGemm, Permute, Route, Sharding
from graphsim.units import Num


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteNode(Node):
    """The choice of experts for every token from the router's logits; learned: corrections of the scores."""

    experts: int
    chosen: int
    learned: int = 0

    def build(self, scope: Scope, inputs: Sequence[Value], step: Mapping[str, Num]) -> str:
        """One kernel."""
        route = Route(tokens=scope.tokens, experts=self.experts, chosen=self.chosen, learned=self.learned)
        return scope.add(self.name, route, inputs)


@dataclass(frozen=True, slots=True, kw_only=True)
class PermuteNode(Node):
    """Tokens copied for each expert that they go to, or the experts' results summed back."""

    chosen: int
    width: int
    gather: bool

    def build(self, scope: Scope, inputs: Sequence[Value], step: Mapping[str, Num]) -> str:
        """One kernel."""
        permute = Permute(tokens=scope.tokens, width=self.width, chosen=self.chosen, gather=self.gather)
        return scope.add(self.name, permute, inputs)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpertGemmNode(Node):
    """The experts' GEMMs with one of their weights; fields as in `ExpertGemm`."""

    n: int
    k: int
    experts: int
    chosen: int
    split: Sharding
    bias: bool = False
    module: str = ""
    tags: tuple[str, ...] = ()
    linear: bool = False
    rank_factor: int = 1
    fuses: tuple[str, ...] = ()
    separate: bool = False
    gated: bool = True
    skew: float = 0.0

    def build(self, scope: Scope, inputs: Sequence[Value], step: Mapping[str, Num]) -> str:
        """One grouped GEMM."""
        gemm = ExpertGemm(
            m=scope.tokens * self.chosen,
            n=self.n,
            k=self.k,
            split=self.split,
            bias=self.bias,
            weights=scope.format_of(self.module, scope.precision.of_experts),
            module=f"{scope.prefix}{self.module}",
            linear=self.linear,
            fuses=self.fuses,
            tags=self.tags,
            experts=self.experts,
            of=self.experts,
            chosen=self.chosen,
            tokens=scope.tokens,
            skew=self.skew,
            rank_factor=self.rank_factor,
            separate=self.separate,
            gated=self.gated,
        )
        return scope.add(self.name, gemm, inputs)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpertActivationNode(Node):
    """The nonlinearity between the experts' GEMMs; reads: values of `width` per routed row."""

    width: int
    chosen: int
    reads: int

    def build(self, scope: Scope, inputs: Sequence[Value], step: Mapping[str, Num]) -> str:
        """One kernel."""
        act = ExpertActivation(elems=scope.tokens * self.chosen * self.width, reads=float(self.reads))
        return scope.add(self.name, act, inputs)
