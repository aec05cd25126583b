"""A transformer whose weights several layers share, in front of a Mamba-2 layer (Zamba2, arXiv 2411.15242, section 2).

It reads both the residual stream and the token embedding; every use adds its own low-rank pair to the MLP.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import networkx as nx

from graphsim.graph import Value, add
from graphsim.models.layers.attention import SelfAttention
from graphsim.models.layers.base import Layer, Projection, Scope
from graphsim.models.layers.norm import NormLayer
from graphsim.ops import Activation, Add, Concatenate, Input, Norm, Part, Repeat, Rope, Sharding
from graphsim.units import Num

_ROOT = "shared_transformer"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pair:
    """A low-rank pair k -> rank -> n, part of the model itself."""

    name: str
    n: Num
    k: Num
    units: int = 0
    parts: tuple[Part, ...] = ()

    def build(self, scope: Scope, x: str, rank: int, idle: bool = False) -> str:
        """Both GEMMs, on no rows and without weights of their own where the pair is idle."""
        m = 0.0 if idle else scope.tokens
        module = f"{_ROOT}.{self.name}"
        first = Projection(name=f"{module}.0", n=rank, k=self.k, shared=idle)
        second = Projection(
            name=f"{module}.1",
            n=self.n,
            k=rank,
            split=Sharding.COLUMN,
            units=self.units,
            parts=self.parts,
            shared=idle,
        )
        return scope.linear(second, scope.linear(first, x, m=m), m=m)


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedTransformerLayer(Layer):
    """The shared transformer's result, projected, joins the input of the Mamba-2 layer.

    owns: this use holds the weights; all others have only their adapter pair of rank `adapter_rank`
    idle_pairs: pairs of the other uses, which the checkpoint's module also contains, unused
    attention_pairs: q, k and v have pairs of their own too
    bias: of the MLP
    """

    attention: SelfAttention
    intermediate: int
    adapter_rank: int
    mamba: Layer
    owns: bool
    idle_pairs: int = 0
    attention_pairs: bool = False
    bias: bool = False

    def build(self, scope: Scope, x: str) -> str:
        """x, embedding -> attention -> MLP -> linear -> + x -> Mamba-2 -> + x."""
        elems = scope.tokens * scope.hidden
        both = scope.add("concatenate", Concatenate(elems=2.0 * elems), [x])
        h = self._norm(scope, "input_layernorm", 2 * scope.hidden, both)
        h = self._norm(scope, "pre_ff_layernorm", scope.hidden, self._attend(scope, h))
        h = scope.linear(Projection(name="linear", n=scope.hidden, k=scope.hidden, tags=("ffn",)), self._feed(scope, h))
        joined = scope.add("transformer_add", Add(elems=elems), [h, x])
        normed = NormLayer(name="mamba_decoder.input_layernorm").build(scope, joined)
        return scope.add("residual", Add(elems=elems), [self.mamba.build(scope, normed), x])

    def _norm(self, scope: Scope, name: str, width: Num, x: str) -> str:
        norm = Norm(rows=scope.tokens, width=width, vectors=1.0 if self.owns else 0.0)
        return scope.add(f"shared_{name}", norm, [x])

    def _linear(
        self,
        scope: Scope,
        name: str,
        n: Num,
        k: Num,
        x: str | Value,
        split: Sharding,
        units: int = 0,
        bias: bool = False,
    ) -> str:
        projection = Projection(
            name=f"{_ROOT}.{name}",
            n=n,
            k=k,
            split=split,
            units=units,
            bias=bias and self.owns,
            tags=("attn",),
            shared=not self.owns,
        )
        return scope.linear(projection, x)

    def _attend(self, scope: Scope, x: str) -> str:
        a = self.attention
        sizes = {"q": (a.heads, a.head_dim), "k": (a.kv_heads, a.head_dim), "v": (a.kv_heads, a.head_dim)}
        q, k, v = [self._input(scope, part, heads, heads * dim, x) for part, (heads, dim) in sizes.items()]
        if a.rope:
            rope = Rope(tokens=scope.tokens, heads=a.heads, kv_heads=a.kv_heads, head_dim=a.head_dim)
            turned = scope.add("rope", rope, [q, k])
            q, k = Value(turned, ("q",)), Value(turned, ("k",))
        out = a.attend(scope, q, k, v)
        return self._linear(scope, "self_attn.o_proj", scope.hidden, a.heads * a.head_dim, out, Sharding.ROW, a.heads)

    def _input(self, scope: Scope, part: str, heads: int, n: Num, x: str) -> Value:
        wide = 2 * scope.hidden
        out = self._linear(scope, f"self_attn.{part}_proj", n, wide, x, Sharding.COLUMN, heads)
        if not self.attention_pairs:
            return Value(out)
        own = self._own_pair(scope, _Pair(name=f"self_attn.linear_{part}_adapter_list", n=n, k=wide, units=heads), x)
        return Value(scope.add(f"{part}_adapter_add", Add(elems=scope.tokens * n), [out, own]))

    def _own_pair(self, scope: Scope, pair: _Pair, x: str) -> str:
        """The low-rank pair of this use, and the idle ones of the other uses."""
        if self.idle_pairs:
            body = nx.DiGraph()
            add(body, "input", Input(role="input", elems=0.0))
            pair.build(replace(scope, graph=body, label=""), "input", self.adapter_rank, idle=True)
            scope.add("idle_pairs", Repeat(role="idle_pairs", body=body, times=self.idle_pairs), [])
        return pair.build(scope, x, self.adapter_rank)

    def _feed(self, scope: Scope, x: str) -> str:
        wide, module = 2 * self.intermediate, f"{_ROOT}.feed_forward"
        halves = tuple(Part(name=part, width=self.intermediate) for part in ("gate", "up"))
        up = Projection(
            name=f"{module}.gate_up_proj",
            n=wide,
            k=scope.hidden,
            split=Sharding.COLUMN,
            tags=("ffn", "up+gate"),
            parts=halves,
            shared=not self.owns,
            bias=self.bias and self.owns,
        )
        out = scope.linear(up, x)
        low_rank = _Pair(name="feed_forward.gate_up_proj_adapter_list", n=wide, k=scope.hidden, parts=halves)
        pair = self._own_pair(scope, low_rank, x)
        out = scope.add("adapter_add", Add(elems=scope.tokens * wide), [out, pair])
        act = Activation(elems=scope.tokens * self.intermediate, reads=2.0, steps=4.0)
        out = scope.add("act_mul", act, [out])
        down = "feed_forward.down_proj"
        return self._linear(scope, down, scope.hidden, self.intermediate, out, Sharding.ROW, bias=self.bias)
