"""Multi-head latent attention: keys and values are compressed to one latent vector per token (arXiv 2405.04434, 2.1).

A prompt is attended in decompressed form: `kv_b_proj` makes keys and values of every head. A decode step is attended
in absorbed form: `kv_b_proj` moves to the queries' and the results' side, and all heads share the cached latent.
With an indexer, engines attend prompts in this way too, so that `kv_b_proj` works only on a prompt's new tokens; its
flops on both sides of the attention are those of one GEMM.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from graphsim.graph import Value
from graphsim.models.layers.base import Layer, Projection, Scope
from graphsim.models.layers.indexer import Indexer
from graphsim.models.phase import Segment
from graphsim.ops import (
    Activation,
    Attention,
    HeadGemm,
    Join,
    KvCache,
    MlaAttention,
    Norm,
    Part,
    Rope,
    Sharding,
    SparseAttention,
)
from graphsim.units import Num


@dataclass(frozen=True, slots=True, kw_only=True)
class LatentAttention(Layer):
    """MLA with `nope` position-free and `rope` rotary dimensions per head.

    q_rank: rank of the queries' own compression, 0 = none
    kv_rank: width of the cached latent
    gate: elements per head of a sigmoid gate on the result, 1 or as many as values; 0 = none
    gate_name: its projection
    sinks: one learned logit per head joins each softmax
    absorbs_prompts: whether prompts are attended in absorbed form too, as engines do with short ones
    reuses: whether an earlier layer's indexer choice is used
    turns: whether the rotary dimensions are rotated by position; else they are like the others (NoPE)
    module: of the projections and norms, below the layer
    """

    heads: int
    q_rank: int
    kv_rank: int
    nope: int
    rope: int
    value_dim: int
    bias: bool = False
    turns: bool = True
    gate: int = 0
    gate_name: str = "g_proj"
    sinks: bool = False
    indexer: Indexer | None = None
    absorbs_prompts: bool = False
    reuses: bool = False
    module: str = "self_attn"

    def build(self, scope: Scope, x: str) -> str:
        """x -> queries, latent -> cache -> attention -> o."""
        q, compressed = self._queries(scope, x)
        latent = self._linear(scope, "kv_a_proj_with_mqa", self.kv_rank + self.rope, scope.hidden, x, self._latent())
        normed = self._norm(scope, "kv_a_layernorm", self.kv_rank, Value(latent, ("latent",)))
        turned = self._turned(scope, q, latent)
        own = self.indexer if not self.reuses else None
        scores = own.scores(scope, x, compressed or x, self.q_rank or scope.hidden) if own else []
        outs = [
            self._attend(scope, segment, q, turned, normed, scores[i : i + 1])
            for i, segment in enumerate(scope.phase.segments)
        ]
        out = outs[0]
        if len(outs) > 1:
            out = scope.add("attention.join", Join(elems=scope.tokens * self.heads * self.value_dim), outs)
        out = self._gated(scope, x, out) if self.gate else out
        return scope.linear(
            Projection(
                name=f"{self.module}.o_proj",
                n=scope.hidden,
                k=self.heads * self.value_dim,
                split=Sharding.ROW,
                units=self.heads,
                bias=self.bias,
                tags=("attn", "out proj"),
            ),
            out,
        )

    def _gated(self, scope: Scope, x: str, out: str) -> str:
        projection = Projection(
            name=f"{self.module}.{self.gate_name}",
            n=self.heads * self.gate,
            k=scope.hidden,
            split=Sharding.COLUMN,
            units=self.heads,
            tags=("attn",),
        )
        gate = scope.linear(projection, x)
        elems, reads = scope.tokens * self.heads * self.value_dim, 1.0 + self.gate / self.value_dim
        return scope.add("attention_gate", Activation(elems=elems, reads=reads, steps=4.0), [out, gate])

    def _turned(self, scope: Scope, q: str, latent: str) -> list[Value]:
        """The rotated parts of queries and of the key; none without rotary dimensions."""
        parts = [Value(q, ("q_rope",)), Value(latent, ("rope",))]
        if not self.rope:
            return []
        if not self.turns:
            return parts
        rope = Rope(tokens=scope.tokens, heads=self.heads, kv_heads=1, head_dim=self.rope)
        name = scope.add("rope", rope, parts)
        return [Value(name, ("q",)), Value(name, ("k",))]

    def _queries(self, scope: Scope, x: str) -> tuple[str, str]:
        parts = (
            Part(name="q_nope", width=self.heads * self.nope, units=self.heads),
            Part(name="q_rope", width=self.heads * self.rope, units=self.heads),
        )
        width, name, source, k = self.heads * (self.nope + self.rope), "q_proj", x, scope.hidden
        compressed = ""
        if self.q_rank:
            down = self._linear(scope, "q_a_proj", self.q_rank, scope.hidden, x)
            compressed = self._norm(scope, "q_a_layernorm", self.q_rank, Value(down))
            name, source, k = "q_b_proj", compressed, self.q_rank
        query = Projection(
            name=f"{self.module}.{name}",
            n=width,
            k=k,
            split=Sharding.COLUMN,
            units=self.heads,
            tags=("attn", "qkv", "query"),
            parts=parts[: 2 if self.rope else 1],
        )
        return scope.linear(query, source), compressed

    def _latent(self) -> tuple[Part, ...]:
        parts = (Part(name="latent", width=self.kv_rank), Part(name="rope", width=self.rope))
        return parts[: 2 if self.rope else 1]

    def _linear(self, scope: Scope, name: str, n: Num, k: Num, x: str, parts: tuple[Part, ...] = ()) -> str:
        tags = ("attn", "qkv", "query" if name == "q_a_proj" else "key")
        return scope.linear(
            Projection(name=f"{self.module}.{name}", n=n, k=k, bias=self.bias, tags=tags, parts=parts), x
        )

    def _norm(self, scope: Scope, name: str, width: int, value: Value, vectors: int = 1) -> str:
        norm = Norm(rows=scope.tokens, width=width, vectors=vectors, module=f"{scope.prefix}{self.module}.{name}")
        return scope.add(name.rsplit(".", 1)[-1], norm, [value])

    def _attend(
        self, scope: Scope, segment: Segment, q: str, turned: list[Value], normed: str, scores: list[str]
    ) -> str:
        suffix = "" if len(scope.phase.segments) == 1 else (".decode" if segment.decode else ".prefill")
        turned = [scope.rows_of(segment, value) for value in turned]
        nope, latent = (scope.rows_of(segment, value) for value in (Value(q, ("q_nope",)), Value(normed)))
        cache = KvCache(
            new_tokens=segment.tokens,
            kv_tokens=segment.kv_tokens(),
            kept_tokens=segment.kept_tokens(),
            kv_heads=1,
            width=self.kv_rank + self.rope,
            kv=scope.precision.kv,
        )
        cached = scope.add(f"kv_cache{suffix}", cache, [latent, *turned[1:]])
        if segment.decode or self.absorbs_prompts:
            return self._absorbed(scope, segment, suffix, nope, [*turned[:1], Value(cached), *map(Value, scores)])
        raised = segment.tokens if self.indexer else segment.kv_tokens()
        keys = scope.linear(self._up(), latent, m=raised)
        attention = self._attention(scope, segment, self.heads, self.nope + self.rope, self.value_dim, 0)
        inputs = [nope, *turned[:1], Value(keys), *turned[1:]]
        return scope.add(f"attention{suffix}", attention, [*inputs, Value(cached), *map(Value, scores)])

    def _up(self) -> Projection:
        return Projection(
            name=f"{self.module}.kv_b_proj",
            n=self.heads * (self.nope + self.value_dim),
            k=self.kv_rank,
            split=Sharding.COLUMN,
            units=self.heads,
            tags=("attn", "qkv", "key", "value"),
        )

    def _absorbed(self, scope: Scope, segment: Segment, suffix: str, nope: Value, seen: list[Value]) -> str:
        tokens, weights = segment.tokens, scope.weights_of(self._up())
        to_latent = HeadGemm(m=tokens, n=self.kv_rank, k=self.nope, heads=self.heads, weights=weights)
        query = scope.add(f"kv_b_proj.absorb_k{suffix}", to_latent, [nope])
        width = self.kv_rank + self.rope
        attention = self._attention(scope, segment, 1, width, self.kv_rank, width)
        out = scope.add(f"attention{suffix}", attention, [Value(query), *seen])
        from_latent = HeadGemm(m=tokens, n=self.value_dim, k=self.kv_rank, heads=self.heads, weights=weights)
        return scope.add(f"kv_b_proj.absorb_v{suffix}", from_latent, [out])

    def _attention(
        self, scope: Scope, segment: Segment, kv_heads: int, head_dim: int, value_dim: int, cache_width: int
    ) -> Attention:
        """One kernel; with an indexer, one that gathers the latents of the chosen keys, also for prompts."""
        seen = self.indexer.chosen if self.indexer else 0
        gathering = partial(
            SparseAttention, method="dsa_shared" if self.reuses else "dsa", slots=seen,
            latent_width=self.kv_rank + self.rope, latent_values=self.kv_rank,
        )  # fmt: skip
        kind = gathering if self.indexer else partial(MlaAttention, absorbed=cache_width > 0)
        return kind(
            sequences=segment.sequences,
            query_tokens=segment.tokens,
            kv_tokens=segment.kv_tokens(seen),
            pairs=segment.pairs(seen, scope.phase.causal),
            heads=self.heads,
            kv_heads=kv_heads,
            head_dim=head_dim,
            value_dim=value_dim,
            decode=segment.decode,
            sinks=self.heads if self.sinks else 0,
            unchecked=True,
            cache_width=cache_width,
            kv=scope.precision.kv,
        )
