"""Indexers: a few narrow heads score earlier tokens, and attention sees the best ones (DeepSeek-V3.2-Exp report)."""

from __future__ import annotations

from dataclasses import dataclass

from graphsim.graph import Value
from graphsim.models.layers.base import Projection, Scope
from graphsim.models.phase import Segment
from graphsim.ops import IndexScores, KvCache, Norm, PoolWindows
from graphsim.units import Num


@dataclass(frozen=True, slots=True, kw_only=True)
class Indexer:
    """Scores all cached tokens; attention then sees the `chosen` best.

    module: of the projections, below the layer
    """

    heads: int
    head_dim: int
    chosen: int
    module: str = "self_attn.indexer"

    def scores(self, scope: Scope, x: str, queries: str, k: Num) -> list[str]:
        """The scores of each kind of sequence in the step; `queries` are the queries' own `k` elements."""
        query = self._linear(scope, "wq_b", self.heads * self.head_dim, queries, k)
        key = self._linear(scope, "wk", self.head_dim, x)
        norm = Norm(rows=scope.tokens, width=self.head_dim, vectors=2, module=f"{scope.prefix}{self.module}.k_norm")
        keys = self._keys(scope, x, scope.add("k_norm", norm, [key]))
        weights = self._linear(scope, "weights_proj", self.heads, x)
        return [
            scope.add(
                "index_scores",
                self._score(scope, segment),
                [
                    scope.rows_of(segment, Value(query)),
                    scope.rows_of(segment, Value(weights)),
                    self._kept(scope, segment, keys),
                ],
            )
            for segment in scope.phase.segments
        ]

    def _linear(self, scope: Scope, name: str, n: Num, x: str, k: Num = 0) -> str:
        return scope.linear(Projection(name=f"{self.module}.{name}", n=n, k=k or scope.hidden, tags=("attn",)), x)

    def _keys(self, scope: Scope, x: str, keys: str) -> str:
        """The cache of the step's keys."""
        return keys

    def _sizes(self, scope: Scope, segment: Segment) -> tuple[Num, Num, Num]:
        """New keys, keys in the cache, and query-key pairs."""
        return segment.tokens, segment.kv_tokens(), segment.pairs(0, scope.phase.causal)

    def _kept(self, scope: Scope, segment: Segment, keys: str) -> str:
        new, rows, _ = self._sizes(scope, segment)
        cache = KvCache(
            new_tokens=new,
            kv_tokens=rows,
            kept_tokens=rows,
            kv_heads=1,
            width=self.head_dim,
            kv=scope.precision.kv,
        )
        return scope.add("index_cache", cache, [scope.rows_of(segment, Value(keys))])

    def _score(self, scope: Scope, segment: Segment) -> IndexScores:
        """A GEMM for each head and pair; the heads' scores are summed by their weights."""
        _, rows, pairs = self._sizes(scope, segment)
        return IndexScores(
            sequences=segment.sequences,
            query_tokens=segment.tokens,
            kv_tokens=rows,
            pairs=pairs,
            heads=self.heads,
            kv_heads=1,
            head_dim=self.head_dim,
            value_dim=1,
            decode=segment.decode,
            unchecked=True,
            cache_width=self.head_dim,
            kv=scope.precision.kv,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PooledIndexer(Indexer):
    """Scores one key for every `pool` tokens, and chooses all tokens of the best pools (GLM-5.3-Flash).

    transformers 5.24, `models/glm5_next/modeling_glm5_next.py`, `Glm5NextTextIndexer`.
    """

    pool: int

    def _keys(self, scope: Scope, x: str, keys: str) -> str:
        gate = Projection(
            name=f"{self.module}.index_kpool_compress_gate",
            n=self.head_dim,
            k=scope.hidden,
            linear=False,
            quantised=False,
        )
        pool = PoolWindows(sequences=scope.phase.sequences, tokens=scope.tokens, ratio=self.pool, width=self.head_dim)
        return scope.add("index_pool", pool, [keys, scope.linear(gate, x)])

    def _sizes(self, scope: Scope, segment: Segment) -> tuple[Num, Num, Num]:
        pairs = segment.entry_pairs(self.pool, 0, scope.phase.causal)
        return segment.tokens / self.pool, segment.entries(self.pool), pairs
