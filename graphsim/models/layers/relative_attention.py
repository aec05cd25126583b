"""Attention whose positions are a bias by distance, with short convolutions of keys and values (Inkling).

transformers 5.24, `models/inkling/modeling_inkling.py`, `InklingAttention` and `InklingDecoderLayer`.
"""

from __future__ import annotations

from dataclasses import dataclass

from graphsim.graph import Value
from graphsim.models.layers.attention import SelfAttention
from graphsim.models.layers.base import Layer, Projection, Scope
from graphsim.ops import CausalConv, Compute, Sharding
from graphsim.units import Num


@dataclass(frozen=True, slots=True, kw_only=True)
class RelativeAttention(SelfAttention):
    """A bias for each of `extent` distances, mixed by `relative` numbers of a query's head; taps: of convolutions."""

    relative: int
    extent: int
    taps: int
    rope: bool = False

    def build(self, scope: Scope, x: str) -> str:
        """x -> q, k, v -> convolutions of k and v -> norms; bias by distance -> cache -> attention -> o."""
        query, key, value = (
            scope.linear(self._projection(scope, tag, name, heads * width, heads), x)
            for tag, name, heads, width in (
                ("query", self.names.q, self.heads, self.head_dim),
                ("key", self.names.k, self.kv_heads, self.head_dim),
                ("value", self.names.v, self.kv_heads, self.values),
            )
        )
        key = convolved(scope, "k_sconv", self.kv_heads * self.head_dim, self.taps, key)
        value = convolved(scope, "v_sconv", self.kv_heads * self.values, self.taps, value)
        q = Value(self._head_norm(scope, Value(query), self.names.q_norm, self.heads))
        k = Value(self._head_norm(scope, Value(key), self.names.k_norm, self.kv_heads))
        bias = self._bias(scope, x)
        out = self.attend(scope, q, k, Value(value), [bias] * len(scope.phase.segments))
        last = Projection(
            name=self.names.o,
            n=scope.hidden,
            k=self.heads * self.values,
            split=Sharding.ROW,
            units=self.heads,
            bias=self.out_bias,
            tags=("attn", "out proj"),
        )
        return scope.linear(last, out)

    def _bias(self, scope: Scope, x: str) -> str:
        """One number for each query, head and distance."""
        mixing = Projection(
            name="self_attn.r_proj",
            n=self.heads * self.relative,
            k=scope.hidden,
            split=Sharding.COLUMN,
            units=self.heads,
            tags=("attn",),
        )
        rows = scope.tokens * self.heads
        bias = Compute(
            elems=rows * self.extent,
            reads=rows * self.relative,
            flops=2.0 * rows * self.relative * self.extent,
            weights_elems=self.relative * self.extent,
        )
        return scope.add("rel_logits_proj", bias, [scope.linear(mixing, x)])


@dataclass(frozen=True, slots=True, kw_only=True)
class Convolved(Layer):
    """A layer, and a short convolution over its result."""

    layer: Layer
    name: str
    taps: int

    def build(self, scope: Scope, x: str) -> str:
        """layer -> convolution."""
        return convolved(scope, self.name, scope.hidden, self.taps, self.layer.build(scope, x))


def convolved(scope: Scope, name: str, channels: Num, taps: int, x: str) -> str:
    """A value plus a short convolution of it, in one kernel."""
    conv = CausalConv(**scope.along, channels=channels, taps=taps)
    return scope.add(name, conv, [x])
