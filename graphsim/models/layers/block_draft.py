"""Drafts of a whole block at once (DFlash, arXiv 2602.06036): masked tokens that see the target's states.

A step reads the target's states of the new tokens, projects them to keys and values of every layer, and
runs a block of masked tokens after them once; within the block every token sees every other.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from graphsim.models.layers.attention import SelfAttention
from graphsim.models.layers.base import Projection, Scope, Source
from graphsim.models.layers.drafts import FusedFeatures, target_embedding
from graphsim.models.layers.ends import Stem
from graphsim.models.phase import Segment
from graphsim.ops import Attention, Concatenate, Join, KvCache, Norm, Rope, Sharding
from graphsim.units import Num


@dataclass(frozen=True, slots=True, kw_only=True)
class Drafting:
    """The target states that a block draft reads, and the number of tokens it drafts per step."""

    block: int
    features: FusedFeatures

    def read(self, scope: Scope) -> Source:
        """The target's states of a step's new tokens, prepared for every layer."""
        return Source(node=self.features.build(scope), elems=scope.tokens * scope.hidden)


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskedStem(Stem):
    """The block's tokens, all but the first a mask, in the target's table."""

    module: str = "embed_tokens"

    def build(self, scope: Scope, x: str = "") -> str:
        """Token ids -> values of the residual stream."""
        return target_embedding(scope, self.vocab_size, self.module)


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockAttention(SelfAttention):
    """Queries of the block; keys and values of the target's states and of the block, by the same projections.

    masked: within the block a token sees those before it only
    z-lab, `dflash/model.py`, Qwen3DFlashAttention; vLLM, `models/qwen3_dflash.py`, DFlashQwen3Attention.
    """

    masked: bool = False

    def build(self, scope: Scope, x: str) -> str:
        """block -> q; states and block -> k, v -> cache; attention -> o."""
        states = scope.source or Source(node=x, elems=0.0)
        rows = scope.tokens + states.elems / scope.hidden
        given = [states.node, x] if scope.source else [x]
        both = scope.add("states_and_block", Concatenate(elems=rows * scope.hidden), given)
        q = scope.linear(self._alone("query", self.names.q, self.heads * self.head_dim, self.heads, scope), x)
        k, v = (
            scope.linear(self._alone(tag, name, self.kv_heads * width, self.kv_heads, scope), both, m=rows)
            for tag, name, width in (("key", self.names.k, self.head_dim), ("value", self.names.v, self.values))
        )
        q = self._turned(scope, q, self.names.q_norm, scope.tokens, self.heads)
        k = self._turned(scope, k, self.names.k_norm, rows, self.kv_heads)
        out = self._attended(scope, q, k, v, rows)
        back = Projection(
            name=self.names.o,
            n=scope.hidden,
            k=self.heads * self.values,
            split=Sharding.ROW,
            units=self.heads,
            bias=self.out_bias,
            tags=("attn", "out proj"),
        )
        return scope.linear(back, out)

    def _alone(self, tag: str, name: str, width: int, units: int, scope: Scope) -> Projection:
        """Queries are of other rows than keys and values, so that no engine packs the three."""
        return replace(SelfAttention._projection(self, scope, tag, name, width, units), pack="")

    def _turned(self, scope: Scope, x: str, module: str, rows: Num, heads: int) -> str:
        """Each head normalised, then rotated by its position."""
        per_head = Norm(
            rows=rows * heads, width=self.head_dim, local=True, units=heads, module=f"{scope.prefix}{module}"
        )
        out = scope.add(module.rsplit(".", 1)[-1], per_head, [x])
        return scope.add("rope", Rope(tokens=rows, heads=heads, kv_heads=0, head_dim=self.head_dim), [out])

    def _attended(self, scope: Scope, q: str, k: str, v: str, rows: Num) -> str:
        """Cache and attention. Drafted tokens leave the cache with the next step."""
        segments = scope.phase.segments
        cache = KvCache(
            new_tokens=rows,
            kv_tokens=sum((s.kv_tokens(self.window) for s in segments), start=0.0),
            kept_tokens=sum((s.kept_tokens(self.window) for s in segments), start=0.0),
            kv_heads=self.kv_heads,
            width=self.head_dim + self.values,
            kv=scope.precision.kv,
        )
        kept = scope.add("kv_cache", cache, [k, v])
        outs = [scope.add("attention", self._kernel(scope, segment), [q, kept]) for segment in segments]
        if len(outs) == 1:
            return outs[0]
        return scope.add("attention.join", Join(elems=scope.tokens * self.heads * self.values), outs)

    def _kernel(self, scope: Scope, segment: Segment) -> Attention:
        ahead = 0.0 if self.masked else segment.tokens * (segment.new_tokens - 1.0) / 2.0
        return Attention(
            sequences=segment.sequences,
            query_tokens=segment.tokens,
            kv_tokens=segment.kv_tokens(self.window),
            pairs=segment.pairs(self.window) + ahead,
            heads=self.heads,
            kv_heads=self.kv_heads,
            head_dim=self.head_dim,
            value_dim=self.values,
            window=self.window,
            unchecked=len(scope.phase.segments) > 1,
            sinks=self.heads if self.sinks else 0,
            kv=scope.precision.kv,
        )
