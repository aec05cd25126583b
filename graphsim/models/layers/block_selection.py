"""Attention to a few blocks of keys that a small indexer chooses for each query (MiniMax-M3).

transformers 5.24, `models/minimax_m3_vl/modeling_minimax_m3_vl.py`, `MiniMaxM3VLIndexer`.
"""

from __future__ import annotations

from dataclasses import dataclass

from graphsim.graph import Value
from graphsim.models.layers.base import Projection, Scope
from graphsim.models.phase import Segment
from graphsim.ops import IndexScores, KvCache, Norm, Rope


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockSelection:
    """`heads` narrow queries meet one narrow key of every token; each query keeps the best `blocks` of `block` keys.

    module: of the indexer's projections and norms, below the layer
    """

    heads: int
    head_dim: int
    block: int
    blocks: int
    module: str = "self_attn.indexer"

    @property
    def chosen(self) -> int:
        """Keys that a query sees at most."""
        return self.block * self.blocks

    def scores(self, scope: Scope, x: str) -> list[str]:
        """The scores of each kind of sequence in the step."""
        query = self._normed(scope, "q", self.heads, x)
        key = self._normed(scope, "k", 1, x)
        rope = Rope(tokens=scope.tokens, heads=self.heads, kv_heads=1, head_dim=self.head_dim)
        turned = scope.add("indexer.rope", rope, [query, key])
        return [self._segment(scope, segment, turned) for segment in scope.phase.segments]

    def _normed(self, scope: Scope, part: str, heads: int, x: str) -> str:
        width = heads * self.head_dim
        projection = Projection(name=f"{self.module}.{part}_proj", n=width, k=scope.hidden, tags=("attn",))
        out = scope.linear(projection, x, name=f"indexer.{part}_proj")
        norm = Norm(rows=scope.tokens * heads, width=self.head_dim, module=f"{scope.prefix}{self.module}.{part}_norm")
        return scope.add(f"indexer.{part}_norm", norm, [out])

    def _segment(self, scope: Scope, segment: Segment, turned: str) -> str:
        cache = KvCache(
            new_tokens=segment.tokens,
            kv_tokens=segment.kv_tokens(),
            kept_tokens=segment.kept_tokens(),
            kv_heads=1,
            width=self.head_dim,
            kv=scope.precision.kv,
        )
        kept = scope.add("index_cache", cache, [scope.rows_of(segment, Value(turned, ("k",)))])
        score = IndexScores(
            sequences=segment.sequences,
            query_tokens=segment.tokens,
            kv_tokens=segment.kv_tokens(),
            pairs=segment.pairs(0, scope.phase.causal),
            heads=self.heads,
            kv_heads=1,
            head_dim=self.head_dim,
            value_dim=0,
            decode=segment.decode,
            unchecked=True,
            cache_width=self.head_dim,
            kv=scope.precision.kv,
            method="msa",
        )
        return scope.add("index_scores", score, [scope.rows_of(segment, Value(turned, ("q",))), Value(kept)])
