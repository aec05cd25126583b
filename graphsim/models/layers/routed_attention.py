"""Mixture of attention heads: each token chooses experts, pairs of a query and an output projection (JetMoE).

All experts share the keys and values (arXiv 2404.07413, section 2.3; transformers, `JetMoeMoA`).
"""

from __future__ import annotations

from dataclasses import dataclass

from graphsim.graph import Value
from graphsim.models.layers.attention import SelfAttention
from graphsim.models.layers.base import Layer, Projection, Scope
from graphsim.models.layers.moe import learned_sum
from graphsim.ops import Part, Rope, Route, Sharding
from graphsim.ops.routed import RoutedGemm
from graphsim.units import Num

_MODULE = "self_attention"


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutedAttention(Layer):
    """`chosen` of `experts` for each token, each of as many query heads as there are key heads."""

    experts: int
    chosen: int
    kv_heads: int
    head_dim: int

    def build(self, scope: Scope, x: str) -> str:
        """Router -> queries of the chosen experts; shared keys and values -> attention -> their outputs' sum."""
        width = self.kv_heads * self.head_dim
        heads = self.chosen * self.kv_heads
        routing = self._route(scope, x)
        q = scope.add("routed_q", self._gemm(scope, "input_linear", width, scope.hidden, Sharding.COLUMN), [x, routing])
        kv = scope.linear(self._keys_and_values(scope), x)
        rope = Rope(tokens=scope.tokens, heads=heads, kv_heads=self.kv_heads, head_dim=self.head_dim)
        turned = scope.add("rope", rope, [Value(q), Value(kv, ("k",))])
        inner = SelfAttention(heads=heads, kv_heads=self.kv_heads, head_dim=self.head_dim)
        out = inner.attend(scope, Value(turned, ("q",)), Value(turned, ("k",)), Value(kv, ("v",)))
        out = scope.add("routed_o", self._gemm(scope, "output_linear", scope.hidden, width, Sharding.ROW), [out])
        return learned_sum(scope, out, self.chosen)

    def _route(self, scope: Scope, x: str) -> str:
        name = f"{_MODULE}.experts.router.layer"
        logits = scope.linear(Projection(name=name, n=self.experts, k=scope.hidden, quantised=False), x, name="router")
        return scope.add("route", Route(tokens=scope.tokens, experts=self.experts, chosen=self.chosen), [logits])

    def _gemm(self, scope: Scope, name: str, n: Num, k: Num, split: Sharding) -> RoutedGemm:
        return RoutedGemm(
            m=scope.tokens * self.chosen,
            n=n,
            k=k,
            split=split,
            units=self.kv_heads,
            weights=scope.precision.attention or scope.precision.weights,
            module=f"{scope.prefix}{_MODULE}.experts.{name}",
            linear=False,
            tokens=scope.tokens,
            of=self.experts,
            chosen=self.chosen,
        )

    def _keys_and_values(self, scope: Scope) -> Projection:
        width = self.kv_heads * self.head_dim
        return Projection(
            name=f"{_MODULE}.kv_proj",
            n=2 * width,
            k=scope.hidden,
            split=Sharding.COLUMN,
            units=self.kv_heads,
            tags=("attn", "qkv", "key", "value"),
            parts=tuple(Part(name=part, width=width, units=self.kv_heads) for part in ("k", "v")),
        )
