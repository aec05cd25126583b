"""Operations that an engine fuses with their neighbours: rotary embeddings with the cache, routing."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from graphsim.ops.attention import KvCache
from graphsim.ops.base import Work
from graphsim.ops.elementwise import Rope
from graphsim.ops.experts import Permute, Route
from graphsim.units import Num

CACHE = "cache"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RopeCache(KvCache):
    """Rotates queries and keys and appends keys and values to the cache, in one kernel; parts `q`, `k` and `cache`.

    tokens, heads, rope_heads, head_dim: of the rotary embedding, heads of queries and of keys
    keeps_keys: whether something else than the cache takes the rotated keys
    """

    tokens: Num
    heads: Num
    rope_heads: Num
    head_dim: Num
    keeps_keys: bool = False

    @property
    def _keys(self) -> Num:
        return self.tokens * self.rope_heads * self.head_dim

    @property
    def _queries(self) -> Num:
        return self.tokens * self.heads * self.head_dim

    def work(self) -> Work:
        """Reads queries, keys and values once; writes queries, and keys and values in the cache's format."""
        act, cached = self.activations.bytes, KvCache.work(self)
        kept = self._keys if self.keeps_keys else 0.0
        return replace(
            cached, vector_flops=3.0 * (self._queries + self._keys),
            input_bytes=cached.input_bytes + self._queries * act,
            write_bytes=cached.write_bytes + (self._queries + kept) * act,
        )  # fmt: skip

    @property
    def idle(self) -> bool:
        """Never: rotated queries are used even if nothing is appended."""
        return False

    @property
    def out_parts(self) -> dict[str, Num]:
        """`q` and `k` as rotated, and what attention reads of the cache."""
        return {"q": self._queries, "k": self._keys, CACHE: self.out_elems}

    @property
    def in_elems(self) -> Num | None:
        """Queries, and new keys and values."""
        return self._queries + self.new_tokens * self.kv_heads * self.width


def rope_cache(rope: Rope, cache: KvCache, *, keeps_keys: bool) -> RopeCache:
    """The fused kernel that replaces both."""
    return RopeCache(
        role=cache.role, new_tokens=cache.new_tokens, kv_tokens=cache.kv_tokens, kept_tokens=cache.kept_tokens,
        kv_heads=cache.kv_heads, width=cache.width, source=cache.source, kv=cache.kv, activations=cache.activations,
        layer=cache.layer, residency=cache.residency, tokens=rope.tokens, heads=rope.heads, rope_heads=rope.kv_heads,
        head_dim=rope.head_dim, keeps_keys=keeps_keys,
    )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RoutedGather(Permute):
    """Picks experts from the router's logits and copies every token's row for each, within the experts' kernel.

    experts, learned: of the routing
    """

    experts: Num
    learned: Num = 0.0

    def work(self) -> Work:
        """The work of both; the chosen experts stay on the chip."""
        routed = replace(self._route.work(), write_bytes=0.0)
        return Permute.work(self) + routed

    @property
    def _route(self) -> Route:
        return Route(tokens=self.tokens, experts=self.experts, chosen=self.chosen, activations=self.activations)

    @property
    def parameters(self) -> Num:
        """Learned corrections of the scores."""
        return self.learned


def routed_gather(route: Route, gather: Permute) -> RoutedGather:
    """The fused kernel that replaces both."""
    fields: dict[str, Any] = {
        name: getattr(gather, name)
        for name in ("role", "tokens", "width", "chosen", "by_tokens", "ranks", "activations", "layer", "residency")
    }
    return RoutedGather(gather=True, experts=route.experts, learned=route.learned, **fields)
