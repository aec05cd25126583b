"""Attention of a decoder to the output of its encoder (arXiv 1706.03762, section 3.2.3).

Keys and values are projected from the encoder's rows once, in the prompt step, and are stored in a separate cache that
every later step reads.
"""

from __future__ import annotations

from dataclasses import dataclass

from graphsim.graph import Value
from graphsim.models.layers.attention import AttentionNames
from graphsim.models.layers.base import Layer, Projection, Scope
from graphsim.models.phase import Segment
from graphsim.ops import Attention, Join, KvCache, Norm, Sharding
from graphsim.units import Num

CROSS_NAMES = AttentionNames(
    q="encoder_attn.q_proj", k="encoder_attn.k_proj", v="encoder_attn.v_proj", o="encoder_attn.out_proj"
)
"""Modules of BART and similar models."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CrossAttention(Layer):
    """Queries of the decoder, keys and values of the encoder, output projection.

    width: of the encoder's rows, the decoder's own if 0
    bias, out_bias: of queries, keys and values, and of the result
    key_bias: keys have one where the others do
    soft_cap: scores pass a scaled tanh before the softmax
    head_norms: queries and keys pass a norm of each head
    """

    heads: int
    kv_heads: int
    head_dim: int
    width: int = 0
    bias: bool = False
    out_bias: bool = False
    key_bias: bool = True
    soft_cap: bool = False
    head_norms: bool = False
    names: AttentionNames = CROSS_NAMES

    def build(self, scope: Scope, x: str) -> str:
        """x -> q; the encoder's rows -> k, v -> cache; attention -> o."""
        q = self._projection(scope, "query", self.names.q, self.heads, x)
        k, v = (self._of_source(scope, tag, name, x) for tag, name in (("key", self.names.k), ("value", self.names.v)))
        if self.head_norms:
            q = self._norm(scope, q, self.names.q_norm, self.heads, scope.tokens)
            k = self._norm(scope, k, self.names.k_norm, self.kv_heads, _encoded_rows(scope))
        out, inner = self.attend(scope, q, k, v), self.heads * self.head_dim
        back = Projection(
            name=self.names.o,
            n=scope.hidden,
            k=inner,
            split=Sharding.ROW,
            units=self.heads,
            bias=self.out_bias,
            tags=("attn", "out proj"),
        )
        return scope.linear(back, out, name=f"cross_{self.names.o.rsplit('.', 1)[-1]}")

    def attend(self, scope: Scope, q: Value, k: Value, v: Value) -> str:
        """Cache and attention for every kind of sequence in the step, before the output projection."""
        outs = [self._attend(scope, segment, scope.rows_of(segment, q), k, v) for segment in scope.phase.segments]
        if len(outs) == 1:
            return outs[0]
        return scope.add("cross_join", Join(elems=scope.tokens * self.heads * self.head_dim), outs)

    def _of_source(self, scope: Scope, tag: str, name: str, x: str) -> Value:
        """A projection of the rows that the encoder computes in this step; of no rows in steps that only read the
        cache.
        """
        source = scope.source.node if scope.source else x
        return self._projection(scope, tag, name, self.kv_heads, source, _encoded_rows(scope))

    def _norm(self, scope: Scope, value: Value, module: str, heads: int, rows: Num) -> Value:
        norm = Norm(rows=rows * heads, width=self.head_dim, local=True, units=heads, module=f"{scope.prefix}{module}")
        return Value(scope.add(f"cross_{module.rsplit('.', 1)[-1]}", norm, [value]))

    def _projection(self, scope: Scope, tag: str, name: str, heads: int, source: str, rows: Num | None = None) -> Value:
        projection = Projection(
            name=name,
            n=heads * self.head_dim,
            k=scope.hidden if rows is None else self.width or scope.hidden,
            split=Sharding.COLUMN,
            units=heads,
            bias=self.bias and (tag != "key" or self.key_bias),
            tags=("attn", "qkv", tag),
        )
        return Value(scope.linear(projection, source, m=rows, name=f"cross_{name.rsplit('.', 1)[-1]}"))

    def _attend(self, scope: Scope, segment: Segment, q: Value, k: Value, v: Value) -> str:
        suffix = "" if len(scope.phase.segments) == 1 else (".decode" if segment.decode else ".prefill")
        cache = KvCache(
            new_tokens=segment.encoded_rows,
            kv_tokens=segment.source_rows,
            kept_tokens=segment.source_rows,
            kv_heads=self.kv_heads,
            width=2 * self.head_dim,
            source=True,
            kv=scope.precision.kv,
        )
        kept = scope.add(f"cross_cache{suffix}", cache, [k, v])
        attention = Attention(
            sequences=segment.sequences,
            query_tokens=segment.tokens,
            kv_tokens=segment.source_rows,
            pairs=segment.source_pairs,
            heads=self.heads,
            kv_heads=self.kv_heads,
            head_dim=self.head_dim,
            value_dim=self.head_dim,
            decode=segment.decode,
            causal=False,
            soft_cap=self.soft_cap,
            kv=scope.precision.kv,
        )
        return scope.add(f"cross_attention{suffix}", attention, [q, kept])


def _encoded_rows(scope: Scope) -> Num:
    """Rows that the encoder computes in this step."""
    return sum((segment.encoded_rows for segment in scope.phase.segments), start=0.0)
