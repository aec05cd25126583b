"""Softmax attention over a KV cache.

pairs: query-key pairs attended, summed over the sequences; kv_tokens: cache rows read, likewise.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from graphsim.ops.base import BF16, Op, OpType, Work
from graphsim.ops.elementwise import cut_kv_heads
from graphsim.ops.formats import Format
from graphsim.ops.saved import Saved
from graphsim.symbolic.questions import may_be_nonzero
from graphsim.units import Num


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class KvCache(Op):
    """Appends the new keys and values and passes the cache to attention.

    new_tokens: rows appended
    kv_tokens: rows that the step's attention reads
    kept_tokens: rows that stay in memory; at most one window for windowed layers
    width: elements per token and head: keys plus values
    source: of an encoder's output rather than of the model's own tokens, made once in the prompt step
    """

    op_type: ClassVar[OpType] = OpType.KV_CACHE
    family: ClassVar[str] = "elementwise"

    new_tokens: Num
    kv_tokens: Num
    kept_tokens: Num
    kv_heads: Num
    width: Num
    source: bool = False
    kv: Format = BF16

    def work(self) -> Work:
        """Reads the new rows as activations, writes them in the cache's format."""
        elems = self.new_tokens * self.kv_heads * self.width
        return Work(input_bytes=elems * self.activations.bytes, write_bytes=elems * self.kv.bytes)

    @property
    def idle(self) -> bool:
        """Whether it appends nothing."""
        return not may_be_nonzero(self.new_tokens)

    @property
    def state_bytes(self) -> Num:
        """The cache itself."""
        return self.kept_tokens * self.kv_heads * self.width * self.kv.bytes

    @property
    def out_rows(self) -> Num | None:
        """Rows that attention reads."""
        return self.kv_tokens

    @property
    def out_elems(self) -> Num:
        """What attention reads."""
        return self.kv_tokens * self.kv_heads * self.width

    @property
    def saved(self) -> Saved:
        """Nothing: training keeps no cache, keys and values pass through."""
        return Saved()

    @property
    def in_elems(self) -> Num | None:
        """New keys and values."""
        return self.new_tokens * self.kv_heads * self.width

    def cut(self, ways: Num) -> KvCache:
        """Heads are distributed, and repeated when there are fewer than devices."""
        return replace(self, kv_heads=cut_kv_heads(self.kv_heads, ways))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Attention(Op):
    """softmax(q k^T) v in one kernel (FlashAttention, arXiv 2205.14135): scores never leave the chip.

    sequences, query_tokens (all), kv_tokens (all), pairs: sizes of the batch
    head_dim of queries and keys, value_dim of values; window 0 = full attention
    decode: one query per sequence, the engine's generation kernel
    causal: whether a query sees only the keys up to its own position, as in a decoder; otherwise its whole sequence
    soft_cap: scores pass a scaled tanh, about six steps each in addition to the softmax's five
    unchecked: keys and values come from elsewhere (a compressed vector, another layer's cache), so that the inputs'
        sizes are not checked; `cache_width` elements are read per token and key head, 0 = keys and values
    sinks: learned logits that join each softmax, one per head (StreamingLLM, arXiv 2309.17453)
    biases: elements of a table that is added to the scores, of one sequence and all heads (T5, arXiv 1910.10683)
    """

    op_type: ClassVar[OpType] = OpType.ATTENTION
    family: ClassVar[str] = "attention"
    indexes: ClassVar[bool] = False
    """Whether it scores keys to choose among them, and attends to none."""

    sequences: Num
    query_tokens: Num
    kv_tokens: Num
    pairs: Num
    heads: Num
    kv_heads: Num
    head_dim: Num
    value_dim: Num
    window: Num = 0.0
    decode: bool = False
    causal: bool = True
    sinks: Num = 0.0
    soft_cap: bool = False
    unchecked: bool = False
    cache_width: Num = 0.0
    biases: Num = 0.0
    kv: Format = BF16

    @property
    def read_width(self) -> Num:
        """Elements read per cached token and key head."""
        return np.where(np.greater(self.cache_width, 0.0), self.cache_width, self.head_dim + self.value_dim)[()]

    def work(self) -> Work:
        """flops = 2 pairs heads (head_dim + value_dim); reads queries and cache rows once, writes the result."""
        act = self.activations.bytes
        cache = self.kv_tokens * self.kv_heads * self.read_width
        biases = self.biases * np.minimum(self.query_tokens, 1.0)
        return Work(
            flops=2.0 * self.heads * (self.head_dim + self.value_dim) * self.pairs,
            vector_flops=(11.0 if self.soft_cap else 5.0) * self.heads * self.pairs,
            input_bytes=(self.query_tokens * self.heads * self.head_dim + biases) * act + cache * self.kv.bytes,
            write_bytes=self.out_elems * act,
        )

    @property
    def lasting_bytes(self) -> Num:
        """The cache that generating sequences read."""
        return self.kv_tokens * self.kv_heads * self.read_width * self.kv.bytes if self.decode else 0.0

    @property
    def parameters(self) -> Num:
        """The sinks."""
        return self.sinks

    @property
    def matrix_format(self) -> str:
        """Scores and sums are computed in the activations' format."""
        return self.activations.compute

    @property
    def out_rows(self) -> Num | None:
        """One per query."""
        return self.query_tokens

    @property
    def out_elems(self) -> Num:
        """One value vector per query and head."""
        return self.query_tokens * self.heads * self.value_dim

    @property
    def saved(self) -> Saved:
        """q, k, v and the result, and the log-sum-exp of each query and head in 4 bytes (FlashAttention, section 3.1).

        Scores are computed again in the backward pass.
        """
        queries = self.query_tokens * self.heads
        keys = self.kv_tokens * self.kv_heads * (self.head_dim + self.value_dim)
        act = self.activations.bytes
        return Saved(
            inputs=(queries * self.head_dim + keys) * act, result=queries * self.value_dim * act, own=4.0 * queries
        )

    @property
    def in_elems(self) -> Num | None:
        """Queries, and the cache rows that are read; unless they come from elsewhere."""
        if self.unchecked:
            return None
        cache = self.kv_tokens * self.kv_heads * (self.head_dim + self.value_dim)
        return self.query_tokens * self.heads * self.head_dim + cache

    def cut(self, ways: Num) -> Attention:
        """Heads are distributed over the devices."""
        return replace(
            self, heads=self.heads / ways, kv_heads=cut_kv_heads(self.kv_heads, ways), sinks=self.sinks / ways,
            biases=self.biases / ways,
        )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MlaAttention(Attention):
    """Attention over a cache of one latent vector per token (MLA, arXiv 2405.04434, section 2.1.2).

    absorbed: queries and results are as wide as the latent, which all heads share as keys and values; else keys and
    values of every head have been made of it
    """

    family: ClassVar[str] = "mla"

    absorbed: bool = False
