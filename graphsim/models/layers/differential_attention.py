"""Differential attention: the difference of two softmax attentions (arXiv 2410.05258, section 2.1).

As transformers' `modeling_diffllama.py` computes it: all queries and keys attend twice, once with each half of the
value heads; the second half of the heads is then subtracted from the first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from graphsim.graph import Value
from graphsim.models.layers.attention import SelfAttention
from graphsim.models.layers.base import Scope
from graphsim.models.phase import Segment
from graphsim.ops import Activation, Attention, Join, KvCache, Norm


@dataclass(frozen=True, slots=True, kw_only=True)
class DifferentialAttention(SelfAttention):
    """Two attentions over one cache, their difference, and a norm without weights over each pair of heads."""

    def attend(self, scope: Scope, q: Value, k: Value | None, v: Value | None, scores: Sequence[str] = ()) -> str:
        """Cache, both attentions, difference, norm."""
        rows = [part for part in (k, v) if part is not None]
        halves = [
            self._twice(scope, segment, scope.rows_of(segment, q), [scope.rows_of(segment, part) for part in rows])
            for segment in scope.phase.segments
        ]
        width = scope.tokens * self.heads * self.head_dim
        first, second = [
            outs[0] if len(outs) == 1 else scope.add("attention.join", Join(elems=width), outs)
            for outs in zip(*halves, strict=True)
        ]
        learned = 4 * self.head_dim
        out = scope.add("difference", Activation(elems=width, reads=2.0, steps=2.0, learned=learned), [first, second])
        pairs = self.heads // 2
        norm = Norm(rows=scope.tokens * pairs, width=2 * self.head_dim, vectors=0, local=True, units=pairs)
        return scope.add("groupnorm", norm, [out])

    def _twice(self, scope: Scope, segment: Segment, q: Value, rows: list[Value]) -> tuple[str, str]:
        suffix = "" if len(scope.phase.segments) == 1 else (".decode" if segment.decode else ".prefill")
        cache = KvCache(
            new_tokens=segment.tokens,
            kv_tokens=segment.kv_tokens(),
            kept_tokens=segment.kept_tokens(),
            kv_heads=self.kv_heads,
            width=2 * self.head_dim,
            kv=scope.precision.kv,
        )
        kept = scope.add(f"kv_cache{suffix}", cache, rows)
        attention = Attention(
            sequences=segment.sequences,
            query_tokens=segment.tokens,
            kv_tokens=segment.kv_tokens(),
            pairs=segment.pairs(0, scope.phase.causal),
            heads=self.heads,
            kv_heads=self.kv_heads,
            head_dim=self.head_dim,
            value_dim=self.head_dim,
            decode=segment.decode,
            cache_width=1.5 * self.head_dim,
            unchecked=True,
            kv=scope.precision.kv,
        )
        first = scope.add(f"attention{suffix}", attention, [q, kept])
        return first, scope.add(f"attention{suffix}", attention, [q, kept])
