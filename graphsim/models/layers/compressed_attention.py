"""DeepSeek-V4's attention: one key head whose entries serve as keys and values, recent tokens as they are, older ones
pooled, all of them (heavily compressed) or the best by an indexer (compressed sparse).

transformers 5.24, `models/deepseek_v4/modeling_deepseek_v4.py`, `DeepseekV4Attention`.
"""

from __future__ import annotations

from dataclasses import dataclass

from graphsim.graph import Value
from graphsim.models.layers.base import Layer, Projection, Scope
from graphsim.models.layers.compression import Compression, IndexInputs, index_inputs, scores
from graphsim.models.phase import Segment
from graphsim.ops import Join, KvCache, Norm, Rope, Sharding, SparseAttention


@dataclass(frozen=True, slots=True, kw_only=True)
class CompressedAttention(Layer):
    """Queries through a rank, one key head, an output through `groups` groups of `out_rank`.

    window: recent tokens that each query sees
    compression: of all tokens, None where only the window is seen
    """

    heads: int
    head_dim: int
    q_rank: int
    groups: int
    out_rank: int
    window: int
    compression: Compression | None = None
    module: str = "self_attn"

    def build(self, scope: Scope, x: str) -> str:
        """x -> queries, keys -> caches of window and entries -> attention -> turned back -> grouped output."""
        compressed = self._normed(scope, "q_a_norm", self.q_rank, self._linear(scope, "q_a_proj", self.q_rank, x))
        query = Projection(
            name=f"{self.module}.q_b_proj",
            n=self.heads * self.head_dim,
            k=self.q_rank,
            split=Sharding.COLUMN,
            units=self.heads,
            tags=("attn", "qkv", "query"),
        )
        q = scope.linear(query, compressed)
        per_head = Norm(rows=scope.tokens * self.heads, width=self.head_dim, vectors=0, local=True, units=self.heads)
        q = scope.add("q_b_norm", per_head, [q])
        kv = self._normed(scope, "kv_norm", self.head_dim, self._linear(scope, "kv_proj", self.head_dim, x))
        turn = Rope(tokens=scope.tokens, heads=self.heads, kv_heads=1, head_dim=self.head_dim)
        outs = self._attend(scope, x, compressed, scope.add("rope", turn, [q, kv]))
        out = outs[0]
        if len(outs) > 1:
            out = scope.add("attention.join", Join(elems=scope.tokens * self.heads * self.head_dim), outs)
        back = Rope(tokens=scope.tokens, heads=self.heads, kv_heads=0, head_dim=self.head_dim)
        return self._output(scope, scope.add("rope_back", back, [out]))

    def _output(self, scope: Scope, out: str) -> str:
        """Groups of heads to `out_rank` each, then all of them to the hidden size."""
        width = self.groups * self.out_rank
        grouped = Projection(
            name=f"{self.module}.o_a_proj",
            n=width,
            k=self.heads * self.head_dim // self.groups,
            split=Sharding.COLUMN,
            groups=self.groups,
            units=self.groups,
            tags=("attn", "out proj"),
        )
        last = Projection(
            name=f"{self.module}.o_b_proj",
            n=scope.hidden,
            k=width,
            split=Sharding.ROW,
            units=self.groups,
            tags=("attn", "out proj"),
        )
        return scope.linear(last, scope.linear(grouped, out))

    def _linear(self, scope: Scope, name: str, n: int, x: str) -> str:
        return scope.linear(Projection(name=f"{self.module}.{name}", n=n, k=scope.hidden, tags=("attn",)), x)

    def _normed(self, scope: Scope, name: str, width: int, x: str) -> str:
        norm = Norm(rows=scope.tokens, width=width, module=f"{scope.prefix}{self.module}.{name}")
        return scope.add(name, norm, [x])

    def _attend(self, scope: Scope, x: str, compressed: str, turned: str) -> list[str]:
        """One attention for every kind of sequence in the step, over its window and its entries."""
        entries, index, pool = "", None, self.compression
        if pool:
            entries = pool.pooled(scope, pool.module, self.head_dim, x)
            if pool.indexer:
                index = index_inputs(scope, pool, pool.indexer, x, compressed, self.q_rank)
        outs = []
        for segment in scope.phase.segments:
            suffix = "" if len(scope.phase.segments) == 1 else (".decode" if segment.decode else ".prefill")
            inputs = [
                scope.rows_of(segment, Value(turned, ("q",))),
                *self._seen(scope, segment, suffix, turned, entries, index),
            ]
            outs.append(scope.add(f"attention{suffix}", self._attention(scope, segment), inputs))
        return outs

    def _seen(
        self, scope: Scope, segment: Segment, suffix: str, turned: str, entries: str, index: IndexInputs | None
    ) -> list[Value]:
        """The cache of recent tokens, that of the entries, and which of these each query sees."""
        recent = KvCache(
            new_tokens=segment.tokens,
            kv_tokens=segment.kv_tokens(self.window),
            kept_tokens=segment.kept_tokens(self.window),
            kv_heads=1,
            width=self.head_dim,
            kv=scope.precision.kv,
        )
        found = [scope.add(f"kv_cache{suffix}", recent, [scope.rows_of(segment, Value(turned, ("k",)))])]
        pool = self.compression
        if pool:
            found.append(pool.kept(scope, segment, f"entry_cache{suffix}", self.head_dim, entries))
            if pool.indexer and index:
                found.append(scores(scope, pool, pool.indexer, segment, suffix, index))
        return [Value(node) for node in found]

    def _attention(self, scope: Scope, segment: Segment) -> SparseAttention:
        """Every entry is read once and serves as key and as value."""
        rows, pairs = segment.kv_tokens(self.window), segment.pairs(self.window, scope.phase.causal)
        pool = self.compression
        if pool:
            rows = rows + pool.seen(segment)
            pairs = pairs + segment.entry_pairs(pool.ratio, pool.chosen, scope.phase.causal)
        return SparseAttention(
            sequences=segment.sequences,
            query_tokens=segment.tokens,
            kv_tokens=rows,
            pairs=pairs,
            heads=self.heads,
            kv_heads=1,
            head_dim=self.head_dim,
            value_dim=self.head_dim,
            decode=segment.decode,
            sinks=self.heads,
            unchecked=True,
            cache_width=self.head_dim,
            kv=scope.precision.kv,
            slots=self.window + pool.chosen if pool and pool.chosen else 0,
            method=("csa" if pool.indexer else "hca") if pool else "window",
        )
