"""Learned queries that attend to all rows of a piece (Perceiver, arXiv 2103.03206; Flamingo, arXiv 2204.14198)."""

from __future__ import annotations

from dataclasses import dataclass, replace

from graphsim.models.layers.attention import AttentionNames
from graphsim.models.layers.base import Layer, Projection, Scope
from graphsim.models.layers.encoder import Grid
from graphsim.models.layers.mlp import Mlp
from graphsim.models.layers.norm import VECTORS, NormLayer
from graphsim.ops import Add, Attention, Concatenate, Embedding, Norm, Sharding
from graphsim.units import Num


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryAttention(Layer):
    """Queries from the section's rows, keys and values from the rows of the piece; output projection.

    width: of the piece's rows, the section's if 0
    beside: such rows in addition to its patches (a class token)
    joined: the queries' own rows are attended to as well
    inner: keys, queries and values each pass a second, bare weight (torch's MultiheadAttention after projections)
    further: names of linear layers after the first output projection
    """

    heads: int
    kv_heads: int
    head_dim: int
    width: int = 0
    beside: int = 0
    joined: bool = False
    qkv_bias: bool = False
    out_bias: bool = False
    inner: bool = False
    further: tuple[str, ...] = ()
    names: AttentionNames = AttentionNames()

    def build(self, scope: Scope, x: str) -> str:
        """Rows that attend to themselves."""
        return self.attend(scope, x, x)

    def attend(self, scope: Scope, x: str, context: str) -> str:
        """x -> q; context -> k, v; attention -> o."""
        seen, width = context_rows(scope, self.beside), self.width or scope.hidden
        if self.joined:
            seen = seen + scope.tokens
            context = scope.add("with_queries", Concatenate(elems=seen * width), [context, x])
        q = self._project(scope, "query", self.names.q, (self.heads, scope.hidden), x, scope.tokens)
        k = self._project(scope, "key", self.names.k, (self.kv_heads, width), context, seen)
        v = self._project(scope, "value", self.names.v, (self.kv_heads, width), context, seen)
        attention = Attention(
            sequences=scope.phase.sequences, query_tokens=scope.tokens, kv_tokens=seen, pairs=self._pairs(scope),
            heads=self.heads, kv_heads=self.kv_heads, head_dim=self.head_dim, value_dim=self.head_dim,
            causal=False, kv=scope.activations,
        )  # fmt: skip
        out, k_width = scope.add("attention", attention, [q, k, v]), self.heads * self.head_dim
        for i, name in enumerate((self.names.o, *self.further)):
            back = Projection(
                name=name, n=scope.hidden, k=scope.hidden if i else k_width, bias=self.out_bias,
                split=Sharding.REPLICATED if i else Sharding.ROW, units=self.heads, tags=("attn", "out proj"),
            )  # fmt: skip
            out = scope.linear(back, out)
        return out

    def _pairs(self, scope: Scope) -> Num:
        """Pairs of a query and a row that it sees."""
        found: Num = 0.0
        for grid in scope.phase.segments:
            if isinstance(grid, Grid):
                seen = grid.height * grid.width + self.beside + (grid.new_tokens if self.joined else 0.0)
                found = found + grid.sequences * grid.new_tokens * seen
        return found

    def _project(self, scope: Scope, tag: str, name: str, shape: tuple[int, Num], x: str, m: Num) -> str:
        heads, k = shape
        first = Projection(
            name=name, n=heads * self.head_dim, k=k, bias=self.qkv_bias, units=heads, tags=("attn", "qkv", tag),
            split=Sharding.REPLICATED if self.inner else Sharding.COLUMN,
        )  # fmt: skip
        out = scope.linear(first, x, m=m)
        if not self.inner:
            return out
        second = replace(first, name=f"in_{tag}", k=first.n, bias=True, split=Sharding.COLUMN, bare=True, linear=False)
        return scope.linear(second, out, m=m)


def context_rows(scope: Scope, beside: int = 0) -> Num:
    """Rows of all pieces, including the given extra rows of each."""
    grids = [segment for segment in scope.phase.segments if isinstance(segment, Grid)]
    return sum((grid.sequences * (grid.height * grid.width + beside) for grid in grids), start=0.0)


def context_norm(scope: Scope, name: str, kind: str, context: str, width: int) -> str:
    """A norm of the piece's rows."""
    norm = Norm(rows=context_rows(scope), width=width, vectors=VECTORS[kind], module=f"{scope.prefix}{name}")
    return scope.add(name.rsplit(".", 1)[-1], norm, [context])


def _queries(scope: Scope, count: int, name: str) -> Embedding:
    path = f"{scope.prefix}{name}"
    return Embedding(tokens=scope.tokens, entries=count, width=scope.hidden, whole=True, parameter=path)


@dataclass(frozen=True, slots=True, kw_only=True)
class Perceiver(Layer):
    """`depth` layers of learned queries that attend to the piece's rows and to each other, then a gated MLP.

    queries: how many; the section has as many rows of each piece
    """

    queries: int
    depth: int
    attention: QueryAttention
    mlp: Mlp

    def build(self, scope: Scope, x: str) -> str:
        """Rows of the piece -> answers to the queries."""
        table = _queries(scope, self.queries, "latents")
        rows, elems = scope.add("latents", table, []), scope.tokens * scope.hidden
        for i in range(self.depth):
            layer = replace(scope, prefix=f"{scope.prefix}layers.{i}.")
            context = context_norm(layer, "input_context_norm", "rms", x, int(scope.hidden))
            normed = NormLayer(name="input_latents_norm").build(layer, rows)
            rows = layer.add("attn_residual", Add(elems=elems), [self.attention.attend(layer, normed, context), rows])
            normed = NormLayer(name="post_attention_layernorm").build(layer, rows)
            rows = layer.add("mlp_residual", Add(elems=elems), [self.mlp.build(layer, normed), rows])
        return NormLayer(name="norm").build(scope, rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryProjector(Layer):
    """Learned queries that attend once to the piece's rows, after norms of both; a norm (Aria, arXiv 2410.05993)."""

    queries: int
    attention: QueryAttention

    def build(self, scope: Scope, x: str) -> str:
        """Rows of the piece -> answers to the queries."""
        table = _queries(scope, self.queries, "query")
        inner = replace(scope, prefix=f"{scope.prefix}cross_attn.")
        rows = NormLayer(name="layer_norm", kind="layer").build(inner, scope.add("query", table, []))
        context = context_norm(inner, "layer_norm_kv", "layer", x, int(scope.hidden))
        out = self.attention.attend(inner, rows, context)
        return NormLayer(name="layer_norm", kind="layer").build(scope, out)
