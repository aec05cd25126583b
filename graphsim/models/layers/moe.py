"""Mixture of experts: a router, experts of which each token uses a few, and experts that all tokens share.

Routing: arXiv 1701.06538; shared and fine-grained experts: arXiv 2401.06066.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from graphsim.graph import Value
from graphsim.models.layers.base import Layer, Projection, Scope
from graphsim.models.layers.mlp import Mlp
from graphsim.models.layers.norm import NormLayer
from graphsim.ops import Activation, Add, ExpertActivation, ExpertGemm, Permute, Route, Sharding
from graphsim.units import Num


@dataclass(frozen=True, slots=True, kw_only=True)
class MoeNames:
    """Module names below the layer.

    experts: what adapters call the weights of an expert that the stacks hold: gate, up, down
    latent: the projections before and after experts that work in a latent
    latent_norm: of a norm before the
        second one, "" for none
    """

    router: str = "mlp.gate"
    gate_up: str = "mlp.experts.gate_up_proj"
    down: str = "mlp.experts.down_proj"
    shared_gate: str = "mlp.shared_expert_gate"
    latent: tuple[str, str] = ("mlp.fc1_latent_proj", "mlp.fc2_latent_proj")
    latent_norm: str = ""
    experts: tuple[str, str, str] = ("gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True, slots=True, kw_only=True)
class Moe(Layer):
    """`chosen` of `experts` gated (or plain) MLPs of width `intermediate` for each token.

    latent: width that the experts work in, between two projections that all of them share (LatentMoE, arXiv
        2601.18089); 0 = the hidden size
    latent_bias: of these projections
    shared: an MLP that all tokens pass
    shared_gate: weighted by a learned sigmoid
    correction: a learned score per expert
    router_bias, bias: of the router and of the experts
    router_norm: name of a norm in front of the router
    router_extra: scores in addition to the experts', such as those of shared ones
    router_scale: one learned factor of
        all weights
    sum_bias: a learned vector is added to the sum of the experts' results
    skew: Zipf exponent of the experts' popularity, 0 = uniform
    adapt_experts, adapt_router: PEFT's all-linear reaches them
    separate: each expert's weights are modules of their own, as in code that comes with a model
    """

    experts: int
    chosen: int
    intermediate: int
    gated: bool = True
    latent: int = 0
    latent_bias: bool = False
    shared: Mlp | None = None
    shared_gate: bool = False
    correction: bool = False
    router_bias: bool = False
    router_norm: str = ""
    router_extra: int = 0
    router_scale: bool = False
    bias: bool = False
    sum_bias: bool = False
    skew: float = 0.0
    adapt_experts: bool = False
    adapt_router: bool = False
    separate: bool = False
    names: MoeNames = MoeNames()

    def build(self, scope: Scope, x: str) -> str:
        """Router, gather, experts, sum; shared experts in parallel."""
        routing = self._route(scope, x)
        out = self._experts(scope, self._project(scope, 0, x), routing)
        out = self._project(scope, 1, out)
        if self.sum_bias:
            out = learned_sum(scope, out)
        if self.shared is None:
            return out
        beside = self.shared.build(scope, x)
        elems = scope.tokens * scope.hidden
        if self.shared_gate:
            score = Projection(name=self.names.shared_gate, n=1, k=scope.hidden, quantised=False)
            gate = scope.linear(score, x)
            beside = scope.add("shared_scale", Scale(elems=elems, steps=2.0), [beside, gate])
        return scope.add("shared_add", Add(elems=elems), [out, beside])

    def _route(self, scope: Scope, x: str) -> str:
        router = Projection(
            name=self.names.router,
            n=self.experts + self.router_extra,
            k=scope.hidden,
            bias=self.router_bias,
            linear=self.adapt_router,
            quantised=False,
            parameter=self.adapt_router and self.adapt_experts,  # as transformers 5 holds both, and PEFT reaches them
        )
        if self.router_norm:
            x = NormLayer(name=self.router_norm).build(scope, x)
        logits = scope.linear(router, x)
        route = Route(
            tokens=scope.tokens,
            experts=self.experts + self.router_extra,
            chosen=self.chosen,
            learned=(self.experts if self.correction else 0) + self.router_scale,
        )
        return scope.add("route", route, [logits])

    def _project(self, scope: Scope, way: int, x: str) -> str:
        """A projection into the experts' latent space (0), or out of it (1)."""
        if not self.latent:
            return x
        n, k = (self.latent, scope.hidden) if way == 0 else (scope.hidden, self.latent)
        if way == 1 and self.names.latent_norm:
            x = NormLayer(name=self.names.latent_norm, width=self.latent).build(scope, x)
        return scope.linear(Projection(name=self.names.latent[way], n=n, k=k, bias=self.latent_bias, tags=("ffn",)), x)

    def _experts(self, scope: Scope, x: str, routing: str) -> str:
        tokens, width = scope.tokens, self.intermediate
        outer = self.latent or scope.hidden
        gather = Permute(tokens=tokens, width=outer, chosen=self.chosen, gather=True)
        rows = scope.add("gather_tokens", gather, [x, routing])
        halves = 2 if self.gated else 1
        up = self._gemm(scope, self.names.gate_up, width * halves, outer, Sharding.COLUMN, halves)
        inner = scope.add(_leaf(self.names.gate_up), up, [rows])
        act = ExpertActivation(elems=tokens * self.chosen * width, reads=float(halves))
        inner = scope.add("expert_act", act, [inner])
        down = self._gemm(scope, self.names.down, outer, width, Sharding.ROW, 1)
        out = scope.add(_leaf(self.names.down), down, [inner])
        combine = Permute(tokens=tokens, width=outer, chosen=self.chosen, gather=False)
        return scope.add("combine_tokens", combine, [Value(out)])

    def _gemm(self, scope: Scope, name: str, n: Num, k: Num, split: Sharding, rank_factor: int) -> ExpertGemm:
        return ExpertGemm(
            m=scope.tokens * self.chosen,
            n=n,
            k=k,
            split=split,
            bias=self.bias,
            weights=scope.format_of(name, scope.precision.of_experts),
            module=f"{scope.prefix}{name}",
            linear=self.adapt_experts,
            fuses=self._fused(split) if self.adapt_experts else (),
            tags=("ffn", "up+gate" if split is Sharding.COLUMN else "down"),
            experts=self.experts,
            of=self.experts,
            chosen=self.chosen,
            tokens=scope.tokens,
            skew=self.skew,
            rank_factor=rank_factor,
            separate=self.separate,
            gated=self.gated,
        )

    def _fused(self, split: Sharding) -> tuple[str, ...]:
        gate, up, down = self.names.experts
        return (down,) if split is Sharding.ROW else (gate, up) if self.gated else (up,)


def learned_sum(scope: Scope, x: str, reads: int = 1) -> str:
    """The sum of `reads` results of each token and of one learned vector."""
    elems = scope.tokens * scope.hidden
    if reads > 1:
        x = scope.add("sum_experts", Add(elems=elems, reads=float(reads)), [x])
    return scope.add("sum_bias", Activation(elems=elems, learned=scope.hidden), [x])


def _leaf(name: str) -> str:
    return "expert_" + name.rsplit(".", 1)[-1]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Scale(Activation):
    """Multiplies a value by one number per row."""

    by_row: ClassVar[bool] = True

    reads: Num = 1.0

    @property
    def in_elems(self) -> Num | None:
        """Not checked: the second input is one number per row."""
        return None
