"""A cache with one entry for every few tokens, and the indexer that chooses among its entries (DeepSeek-V4).

transformers 5.24, `models/deepseek_v4/modeling_deepseek_v4.py`: `DeepseekV4CSACompressor`, `DeepseekV4HCACompressor`,
`DeepseekV4Indexer`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from graphsim.graph import Value
from graphsim.models.layers.base import Projection, Scope
from graphsim.models.layers.indexer import Indexer
from graphsim.models.phase import Segment
from graphsim.ops import IndexScores, KvCache, Norm, PoolWindows, Rope
from graphsim.units import Num


@dataclass(frozen=True, slots=True, kw_only=True)
class Compression:
    """Every `ratio` tokens become an entry; with an indexer, windows overlap and queries see the chosen entries only.

    module: of the projections, below the layer
    """

    ratio: int
    indexer: Indexer | None = None
    module: str = "self_attn.compressor"

    @property
    def chosen(self) -> int:
        """Entries that a query sees at most, 0 for all."""
        return self.indexer.chosen if self.indexer else 0

    def seen(self, segment: Segment) -> Num:
        """Entries that the queries of a segment read, each counted once per sequence."""
        kept = segment.entries(self.ratio)
        return np.minimum(kept, segment.tokens * self.chosen) if self.chosen else kept

    def pooled(self, scope: Scope, module: str, width: int, x: str) -> str:
        """Projections of values and weights -> pooled windows -> norm -> rotary embedding."""
        series = 2 if self.indexer else 1
        label = module.rsplit(".", 1)[-1]
        rows = [_linear(scope, f"{module}.{part}", series * width, x) for part in ("kv_proj", "gate_proj")]
        pool = PoolWindows(
            sequences=scope.phase.sequences, tokens=scope.tokens, ratio=self.ratio, width=width, series=series
        )
        new = scope.tokens / self.ratio
        out = scope.add(f"{label}.pool", pool, rows)
        norm = Norm(rows=new, width=width, module=f"{scope.prefix}{module}.kv_norm")
        out = scope.add(f"{label}.kv_norm", norm, [out])
        return scope.add(f"{label}.rope", Rope(tokens=new, heads=0, kv_heads=1, head_dim=width), [out])

    def kept(self, scope: Scope, segment: Segment, name: str, width: int, entries: str) -> str:
        """The entries' cache."""
        rows = segment.entries(self.ratio)
        cache = KvCache(
            new_tokens=segment.tokens / self.ratio,
            kv_tokens=rows,
            kept_tokens=rows,
            kv_heads=1,
            width=width,
            kv=scope.precision.kv,
        )
        return scope.add(name, cache, [scope.rows_of(segment, Value(entries))])


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexInputs:
    """The inputs of scores: queries, a weight for each head, entries."""

    query: str
    weights: str
    entries: str


def index_inputs(
    scope: Scope, compression: Compression, indexer: Indexer, x: str, compressed: str, k: Num
) -> IndexInputs:
    """Projections of the indexer; `compressed` are the queries' own `k` elements."""
    module, width = f"{compression.module}.indexer", indexer.heads * indexer.head_dim
    query = _linear(scope, f"{module}.q_b_proj", width, compressed, k)
    turn = Rope(tokens=scope.tokens, heads=indexer.heads, kv_heads=0, head_dim=indexer.head_dim)
    return IndexInputs(
        query=scope.add("indexer.q_rope", turn, [query]),
        weights=_linear(scope, f"{module}.scorer.weights_proj", indexer.heads, x),
        entries=compression.pooled(scope, module, indexer.head_dim, x),
    )


def scores(
    scope: Scope, compression: Compression, indexer: Indexer, segment: Segment, suffix: str, inputs: IndexInputs
) -> str:
    """Every query with every entry up to its position, by a few narrow heads."""
    kept = compression.kept(scope, segment, f"index_cache{suffix}", indexer.head_dim, inputs.entries)
    score = IndexScores(
        sequences=segment.sequences,
        query_tokens=segment.tokens,
        kv_tokens=segment.entries(compression.ratio),
        pairs=segment.entry_pairs(compression.ratio, 0, scope.phase.causal),
        heads=indexer.heads,
        kv_heads=1,
        head_dim=indexer.head_dim,
        value_dim=0,
        decode=segment.decode,
        unchecked=True,
        cache_width=indexer.head_dim,
        kv=scope.precision.kv,
        method="csa",
    )
    read = [scope.rows_of(segment, Value(name)) for name in (inputs.query, inputs.weights)]
    return scope.add(f"index_scores{suffix}", score, [*read, Value(kept)])


def _linear(scope: Scope, name: str, n: Num, x: str, k: Num = 0) -> str:
    """A projection whose node carries the name of its module's parent too."""
    projection = Projection(name=name, n=n, k=k or scope.hidden, tags=("attn",))
    return scope.linear(projection, x, name=".".join(name.split(".")[-2:]))
