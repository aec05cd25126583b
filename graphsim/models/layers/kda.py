"""Kimi delta attention: the gated delta rule with a decay for every channel (arXiv 2510.26692, section 3)."""

from __future__ import annotations

from dataclasses import dataclass

from graphsim.models.layers.base import Layer, Projection, Scope
from graphsim.ops import Activation, CausalConv, Norm, Scan, Sharding


@dataclass(frozen=True, slots=True, kw_only=True)
class KdaNames:
    """Module names below the layer: projections of the decay and of the output's gate, two where a rank is between."""

    decay: tuple[str, ...] = ("self_attn.forget_gate.f_a_proj", "self_attn.forget_gate.f_b_proj")
    gate: tuple[str, ...] = ("self_attn.g_a_proj", "self_attn.g_b_proj")
    module: str = "self_attn"


@dataclass(frozen=True, slots=True, kw_only=True)
class KimiDeltaAttention(Layer):
    """`heads` heads with a state of head_dim x head_dim; short convolutions of `taps` over q, k and v.

    rank: of the decay's and the gate's projections where `names` has two of them
    """

    heads: int
    head_dim: int
    taps: int
    rank: int
    names: KdaNames = KdaNames()

    def build(self, scope: Scope, x: str) -> str:
        """q, k, v -> convolution; decay, beta -> delta rule -> norm, gate -> o."""
        width, tokens = self.heads * self.head_dim, scope.tokens
        module = self.names.module
        qkv = [
            self._column(scope, f"{module}.{part}_proj", width, x, ("qkv", tag))
            for part, tag in (("q", "query"), ("k", "key"), ("v", "value"))
        ]
        conv = CausalConv(**scope.along, channels=3 * width, taps=self.taps, mechanism="kda")
        mixed = scope.add("conv1d", conv, qkv)
        decay = self._channels(scope, self.names.decay, x)
        beta = self._column(scope, f"{module}.b_proj", self.heads, x)
        rule = Scan(
            **scope.along,
            channels=width,
            state=self.head_dim,
            inputs=4 * width + self.heads,
            learned=width + self.heads,
            matrix=True,
            mechanism="kda",
            heads=self.heads,
            key_heads=self.heads,
        )
        out = scope.add("kimi_delta_rule", rule, [mixed, decay, beta])
        gate = self._channels(scope, self.names.gate, x)
        norm = Norm(
            rows=tokens * self.heads,
            width=self.head_dim,
            local=True,
            units=self.heads,
            module=f"{scope.prefix}{module}.o_norm",
        )
        out = scope.add("o_norm", norm, [out])
        out = scope.add("gate", Activation(elems=tokens * width, reads=2.0, steps=4.0), [out, gate])
        last = Projection(
            name=f"{module}.o_proj",
            n=scope.hidden,
            k=width,
            split=Sharding.ROW,
            units=self.heads,
            tags=("attn", "out proj"),
        )
        return scope.linear(last, out)

    def _channels(self, scope: Scope, names: tuple[str, ...], x: str) -> str:
        """To all channels, through a rank where there are two projections."""
        *narrow, last = names
        for name in narrow:
            x = scope.linear(Projection(name=name, n=self.rank, k=scope.hidden, tags=("attn",)), x)
        k = self.rank if narrow else 0
        return self._column(scope, last, self.heads * self.head_dim, x, k=k)

    def _column(self, scope: Scope, name: str, n: int, x: str, tags: tuple[str, ...] = (), k: int = 0) -> str:
        projection = Projection(
            name=name,
            n=n,
            k=k or scope.hidden,
            split=Sharding.COLUMN,
            units=self.heads,
            tags=("attn", *tags),
        )
        return scope.linear(projection, x)
