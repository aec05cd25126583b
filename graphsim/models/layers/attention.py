"""Softmax attention with full, grouped or single key/value heads.

GQA: arXiv 2305.13245; MQA: arXiv 1911.02150; sliding window: arXiv 2004.05150; RoPE: arXiv 2104.09864.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from graphsim.graph import Value
from graphsim.models.layers.base import Layer, Projection, Scope
from graphsim.models.phase import Segment
from graphsim.ops import (
    Activation,
    Attention,
    Embedding,
    KvCache,
    Norm,
    Part,
    Rope,
    Sharding,
)
from graphsim.units import Num

if TYPE_CHECKING:
    from graphsim.models.layers.block_selection import BlockSelection


class QkNorm(Enum):
    """Norm of queries and keys: none, per head with shared or separate weights, or over all heads at once."""

    NONE = "none"
    HEAD = "head"
    OWN_HEAD = "own_head"
    FULL = "full"


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionNames:
    """Module names below the layer. A `fused` name replaces q, k and v by one weight.

    gate: of the output gate's own weight; empty where the gate, if any, is projected with the queries
    """

    q: str = "self_attn.q_proj"
    k: str = "self_attn.k_proj"
    v: str = "self_attn.v_proj"
    o: str = "self_attn.o_proj"
    fused: str = ""
    q_norm: str = "self_attn.q_norm"
    k_norm: str = "self_attn.k_norm"
    biases: str = "self_attn.relative_attention_bias"
    gate: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SelfAttention(Layer):
    """Projections, rotary embedding, cache, attention, output projection.

    value_dim: of value heads, head_dim if 0
    width: of the rows that queries, keys and values are projected from, the hidden size if 0
    window: keys that a query sees, 0 = all
    gated: a learned gate multiplies the result, element by element, or head by head where `gates_heads`
    gate_bias: a learned number for each head joins the gate
    adapt_gate: PEFT's all-linear reaches the gate's own weight
    soft_cap: scores pass a scaled tanh before the softmax (Gemma 2, arXiv 2408.00118, section 2)
    sinks: one learned logit per head joins each softmax
    shares_kv: keys and values are another layer's, so none are projected or kept
    keys_are_values: one projection serves as both
    key_bias: keys have a bias where queries and values have one
    cached: keys and values stay for later steps; an encoder's do not: its rows see each other, in both directions
    biased: a table of biases by distance is added to the scores
    buckets: its entries for each head, where it is this
        layer's own and not an earlier one's (T5, arXiv 1910.10683, section 2.1)
    selection: an indexer that chooses the blocks of keys which a query sees
    """

    heads: int
    kv_heads: int
    head_dim: int
    value_dim: int = 0
    width: int = 0
    window: int = 0
    qkv_bias: bool = False
    out_bias: bool = False
    rope: bool = True
    qk_norm: QkNorm = QkNorm.NONE
    norm_vectors: int = 1
    gated: bool = False
    gates_heads: bool = False
    gate_bias: bool = False
    adapt_gate: bool = True
    sinks: bool = False
    soft_cap: bool = False
    shares_kv: bool = False
    keys_are_values: bool = False
    key_bias: bool = True
    cached: bool = True
    biased: bool = False
    buckets: int = 0
    selection: BlockSelection | None = None
    names: AttentionNames = AttentionNames()

    @property
    def values(self) -> int:
        """Width of a value head."""
        return self.value_dim or self.head_dim

    @property
    def loose(self) -> bool:
        """Whether attention takes more than queries and the cache."""
        return self.shares_kv or self.buckets > 0 or self.selection is not None

    def build(self, scope: Scope, x: str) -> str:
        """x -> q, k, v -> (norms) -> RoPE -> cache -> attention -> o."""
        q, k, v, gate = self._project(scope, x)
        if self.qk_norm is not QkNorm.NONE:
            q = Value(self._head_norm(scope, q, self.names.q_norm, self.heads))
            k = k and Value(self._head_norm(scope, k, self.names.k_norm, self.kv_heads))
        if self.rope:
            rope = Rope(
                tokens=scope.tokens,
                heads=self.heads,
                kv_heads=self.kv_heads if k else 0,
                head_dim=self.head_dim,
            )
            name = scope.add("rope", rope, [q, k] if k else [q])
            q, k = Value(name, ("q",)), k and Value(name, ("k",))
        out = self.attend(scope, q, k, v, self.selection.scores(scope, x) if self.selection else [])
        if gate is not None:
            share = 1.0 / self.values if self.gates_heads else 1.0
            elems = scope.tokens * self.heads * self.values
            learned = self.heads if self.gate_bias else 0
            product = Activation(elems=elems, reads=1.0 + share, steps=1.0 + 3.0 * share, learned=learned)
            out = scope.add("attention_gate", product, [out, gate])
        return scope.linear(
            Projection(
                name=self.names.o,
                n=scope.hidden,
                k=self.heads * self.values,
                split=Sharding.ROW,
                units=self.heads,
                bias=self.out_bias,
                tags=("attn", "out proj"),
            ),
            out,
        )

    def attend(self, scope: Scope, q: Value, k: Value | None, v: Value | None, scores: Sequence[str] = ()) -> str:
        """Cache and attention for every kind of sequence in the step, before the output projection.

        scores: an indexer's for each of them, where there is one
        """
        outs = [
            self._attend(scope, segment, [value for value in (q, k, v) if value], scores[i : i + 1])
            for i, segment in enumerate(scope.phase.segments)
        ]
        return outs[0] if len(outs) == 1 else self._join(scope, outs)

    def _project(self, scope: Scope, x: str) -> tuple[Value, Value | None, Value | None, Value | None]:
        if self.names.fused:
            node = scope.linear(self._fused_projection(scope), x)
            return Value(node, ("q",)), Value(node, ("k",)), Value(node, ("v",)), self._own_gate(scope, x)
        width, joint = self.heads * self.head_dim, self.gated and not self.names.gate
        gate = tuple(Part(name=part, width=width, units=self.heads) for part in ("q", "gate")) if joint else ()
        query = self._projection(scope, "query", self.names.q, width * (2 if joint else 1), self.heads)
        node = scope.linear(replace(query, parts=gate), x)
        q, gate_value = Value(node), self._own_gate(scope, x)
        if joint:
            q, gate_value = Value(node, ("q",)), Value(node, ("gate",))
        if self.shares_kv:
            return q, None, None, gate_value
        key = self._projection(scope, "key", self.names.k, self.kv_heads * self.head_dim, self.kv_heads)
        if self.keys_are_values:
            shared = Value(scope.linear(key, x))
            return q, shared, shared, gate_value
        value = self._projection(scope, "value", self.names.v, self.kv_heads * self.values, self.kv_heads)
        return q, Value(scope.linear(key, x)), Value(scope.linear(value, x)), gate_value

    def _own_gate(self, scope: Scope, x: str) -> Value | None:
        """The gate that has its own weight."""
        if not (self.gated and self.names.gate):
            return None
        gate = Projection(
            name=self.names.gate,
            n=self.heads * (1 if self.gates_heads else self.values),
            k=self.width or scope.hidden,
            split=Sharding.COLUMN,
            units=self.heads,
            tags=("attn",),
            linear=self.adapt_gate,
        )
        return Value(scope.linear(gate, x))

    def _projection(self, scope: Scope, tag: str, name: str, width: int, units: int) -> Projection:
        return Projection(
            name=name,
            n=width,
            k=self.width or scope.hidden,
            split=Sharding.COLUMN,
            units=units,
            bias=self.qkv_bias and (tag != "key" or self.key_bias),
            tags=("attn", "qkv", tag),
            pack="qkv_proj",
        )

    def _fused_projection(self, scope: Scope) -> Projection:
        parts = (
            Part(name="q", width=self.heads * self.head_dim, units=self.heads),
            Part(name="k", width=self.kv_heads * self.head_dim, units=self.kv_heads),
            Part(name="v", width=self.kv_heads * self.values, units=self.kv_heads),
        )
        return Projection(
            name=self.names.fused,
            n=sum(part.width for part in parts),
            k=self.width or scope.hidden,
            split=Sharding.COLUMN,
            bias=self.qkv_bias,
            tags=("attn", "qkv"),
            parts=parts,
        )

    def _head_norm(self, scope: Scope, value: Value, module: str, heads: int) -> str:
        per_head = self.qk_norm is not QkNorm.FULL
        copies = heads if self.qk_norm is QkNorm.OWN_HEAD else 1
        norm = Norm(
            rows=scope.tokens * heads if per_head else scope.tokens,
            width=self.head_dim if per_head else heads * self.head_dim,
            vectors=self.norm_vectors * copies,
            local=per_head,
            units=heads if per_head else 0,
            own=copies > 1,
            module=f"{scope.prefix}{module}",
        )
        name = scope.add(module.rsplit(".", 1)[-1], norm, [value])
        if per_head:
            return name
        from graphsim.ops import Slice

        return scope.add("own_heads", Slice(elems=norm.out_elems), [name])

    def _attend(self, scope: Scope, segment: Segment, values: list[Value], scores: Sequence[str]) -> str:
        suffix = "" if len(scope.phase.segments) == 1 else (".decode" if segment.decode else ".prefill")
        values = [scope.rows_of(segment, value) for value in values]
        inputs, kept = values[:1], values[1:]
        if kept and not self.cached:
            inputs = [*inputs, *kept]
        elif kept:
            cache = KvCache(
                new_tokens=segment.tokens,
                kv_tokens=segment.kv_tokens(self.window),
                kept_tokens=segment.kept_tokens(self.window),
                kv_heads=self.kv_heads,
                width=self.head_dim + self.values,
                kv=scope.precision.kv,
            )
            inputs = [*inputs, Value(scope.add(f"kv_cache{suffix}", cache, kept))]
        if self.buckets:
            inputs = [*inputs, Value(self._position_biases(scope, segment, suffix))]
        kernel = replace(self.kernel(scope, segment), unchecked=self.loose or bool(scores))
        return scope.add(f"attention{suffix}", kernel, [*inputs, *map(Value, scores)])

    def _kind(self, seen: Num) -> Callable[..., Attention]:
        """Attention to all keys, or to the selected ones."""
        if not self.selection:
            return Attention
        from graphsim.ops import SparseAttention

        return partial(SparseAttention, method="msa", slots=seen)

    def kernel(self, scope: Scope, segment: Segment) -> Attention:
        """The attention of one kind of sequence; learned sinks belong to the first kind."""
        seen = self.selection.chosen if self.selection else self.window
        rows = segment.kv_tokens(self.window) if self.cached else segment.tokens
        if self.selection:
            rows = np.minimum(rows, segment.tokens * seen)
        return self._kind(seen)(
            sequences=segment.sequences,
            query_tokens=segment.tokens,
            kv_tokens=rows,
            pairs=segment.pairs(seen, scope.phase.causal) if self.cached else segment.near_pairs(self.window),
            heads=self.heads,
            kv_heads=self.kv_heads,
            head_dim=self.head_dim,
            value_dim=self.values,
            window=self.window if self.cached else 0,
            decode=segment.decode,
            causal=self.cached,
            sinks=self.heads if self.sinks and segment is scope.phase.segments[0] else 0,
            soft_cap=self.soft_cap,
            unchecked=self.loose,
            biases=self._biased_pairs(segment) * self.heads,
            kv=scope.precision.kv if self.cached else scope.activations,
        )

    def _biased_pairs(self, segment: Segment) -> Num:
        """Pairs of positions of one sequence that a bias is added to."""
        return segment.new_tokens * (segment.past_tokens + segment.new_tokens) if self.biased else 0.0

    def _position_biases(self, scope: Scope, segment: Segment, suffix: str) -> str:
        """One bias for each head and pair of positions, looked up once for all sequences of a kind."""
        table = Embedding(
            tokens=self._biased_pairs(segment),
            entries=self.buckets,
            width=self.heads,
            whole=True,
            shared=segment is not scope.phase.segments[0],
            module=f"{scope.prefix}{self.names.biases}",
        )
        return scope.add(f"position_biases{suffix}", table, [])

    def _join(self, scope: Scope, outs: list[str]) -> str:
        from graphsim.ops import Join

        return scope.add("attention.join", Join(elems=scope.tokens * self.heads * self.values), outs)
