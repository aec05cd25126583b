"""Entries of attention: rotary embedding, caches, and softmax attention of given queries, keys and values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from graphsim.files.arithmetic import Expression
from graphsim.graph import Value
from graphsim.models.layers.attention import SelfAttention
from graphsim.models.layers.base import NEARLY_NONE, Scope
from graphsim.models.layers.cross_attention import CrossAttention
from graphsim.models.layers.custom.node import Node
from graphsim.models.phase import Segment
from graphsim.ops import Attention, Join, KvCache, Rope, SomeRows
from graphsim.units import Num


@dataclass(frozen=True, slots=True, kw_only=True)
class RopeNode(Node):
    """Rotary embedding of queries, and keys if there are any; parts `q` and `k`."""

    heads: int
    kv_heads: int
    head_dim: int

    @property
    def parts(self) -> tuple[str, ...]:
        """Queries, and keys if there are any."""
        return ("q", "k") if self.kv_heads else ("q",)

    def build(self, scope: Scope, inputs: Sequence[Value], step: Mapping[str, Num]) -> str:
        """One kernel for both."""
        rope = Rope(tokens=scope.tokens, heads=self.heads, kv_heads=self.kv_heads, head_dim=self.head_dim)
        return scope.add(self.name, rope, inputs)


@dataclass(frozen=True, slots=True, kw_only=True)
class KvCacheNode(Node):
    """A cache separate from attention: `width` elements for each token and head; all rows that the step sees."""

    kv_heads: int
    width: int
    window: int = 0

    def build(self, scope: Scope, inputs: Sequence[Value], step: Mapping[str, Num]) -> str:
        """One append for each kind of sequence in the step."""
        caches = [
            KvCache(
                new_tokens=segment.tokens,
                kv_tokens=segment.kv_tokens(self.window),
                kept_tokens=segment.kept_tokens(self.window),
                kv_heads=self.kv_heads,
                width=self.width,
                kv=scope.precision.kv,
            )
            for segment in scope.phase.segments
        ]
        names = [
            scope.add(f"{self.name}{suffix_of(scope, segment)}", cache, inputs)
            for segment, cache in zip(scope.phase.segments, caches, strict=True)
        ]
        if len(names) == 1:
            return names[0]
        return scope.add(f"{self.name}.join", Join(elems=sum((c.out_elems for c in caches), start=0.0)), names)


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionNode(Node):
    """Cache and softmax attention of queries, keys and values, or of queries with an earlier layer's cache.

    Where scores are biased, the biases may be further inputs after these.
    """

    attention: SelfAttention

    def build(self, scope: Scope, inputs: Sequence[Value], step: Mapping[str, Num]) -> str:
        """Appends keys and values to the cache, attends."""
        q, *rest = inputs
        k, v, *biases = [None, None, *rest] if self.attention.shares_kv else rest
        table = [self.whole(scope, biases[0])] * len(scope.phase.segments) if biases and biases[0] else []
        return self.attention.attend(scope, q, k, v, table)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptAttentionNode(Node):
    """Attention of queries to the contents of a cache node, or to values expanded from it; biases may follow as
    inputs.
    """

    attention: SelfAttention

    def build(self, scope: Scope, inputs: Sequence[Value], step: Mapping[str, Num]) -> str:
        """One kernel for each kind of sequence in the step."""
        stored = all(_is_cache(scope, value.node) for value in inputs[1:])
        outs = []
        for segment in scope.phase.segments:
            op = replace(self.attention.kernel(scope, segment), unchecked=True)
            op = op if stored else replace(op, kv=scope.activations)
            outs.append(scope.add(f"{self.name}{suffix_of(scope, segment)}", op, inputs))
        if len(outs) == 1:
            return outs[0]
        elems = scope.tokens * self.attention.heads * self.attention.values
        return scope.add(f"{self.name}.join", Join(elems=elems), outs)


@dataclass(frozen=True, slots=True, kw_only=True)
class CrossAttentionNode(Node):
    """Attention of queries to an encoder's keys and values, which are in a separate cache."""

    attention: CrossAttention

    def build(self, scope: Scope, inputs: Sequence[Value], step: Mapping[str, Num]) -> str:
        """Stores the keys and values encoded in the step, and attends to all stored ones."""
        q, k, v = inputs
        return self.attention.attend(scope, q, k, v)


@dataclass(frozen=True, slots=True, kw_only=True)
class UncachedAttentionNode(Node):
    """Attention to keys and values that no later step sees: by default this step's rows, in both directions.

    queries, rows, pairs: of queries, keys and query-key pairs of all sequences; a query sees every key of its sequence
    causal: a query sees the keys up to its own position, at most `window` of them
    """

    attention: SelfAttention
    causal: bool = False
    queries: Expression | None = None
    rows: Expression | None = None
    pairs: Expression | None = None

    def build(self, scope: Scope, inputs: Sequence[Value], step: Mapping[str, Num]) -> str:
        """One kernel for the whole step."""
        own, sequences = self.attention, np.maximum(scope.phase.sequences, NEARLY_NONE)
        queries = scope.tokens if self.queries is None else self.size("queries", self.queries, step)
        rows = scope.tokens if self.rows is None else self.size("rows", self.rows, step)
        kernel = Attention(
            sequences=scope.phase.sequences,
            query_tokens=queries,
            kv_tokens=rows,
            pairs=self._pairs(scope, queries, rows, step),
            heads=own.heads,
            kv_heads=own.kv_heads,
            head_dim=own.head_dim,
            value_dim=own.values,
            causal=self.causal,
            sinks=own.heads if own.sinks else 0,
            soft_cap=own.soft_cap,
            unchecked=own.biased,
            biases=queries / sequences * (rows / sequences) * own.heads if own.biased else 0.0,
            kv=scope.activations,
        )
        return scope.add(self.name, kernel, inputs)

    def _pairs(self, scope: Scope, queries: Num, rows: Num, step: Mapping[str, Num]) -> Num:
        if self.pairs is not None:
            return self.size("pairs", self.pairs, step)
        if self.queries is not None or self.rows is not None:
            return queries * rows / np.maximum(scope.phase.sequences, NEARLY_NONE)
        window = self.attention.window
        if not self.causal:
            return sum((segment.near_pairs(window) for segment in scope.phase.segments), start=0.0)
        fresh = [Segment(sequences=s.sequences, new_tokens=s.new_tokens) for s in scope.phase.segments]
        return sum((segment.pairs(window) for segment in fresh), start=0.0)


def suffix_of(scope: Scope, segment: Segment) -> str:
    """A suffix that distinguishes the kernels of a step's kinds of sequences; "" if there is one kind."""
    return "" if len(scope.phase.segments) == 1 else (".decode" if segment.decode else ".prefill")


def _is_cache(scope: Scope, node: str) -> bool:
    """Whether a value is a cache's contents, complete or in part."""
    op = scope.graph.nodes[node]["op"]
    if isinstance(op, Join | SomeRows):
        return all(_is_cache(scope, source) for source in scope.graph.pred[node])
    return isinstance(op, KvCache)
