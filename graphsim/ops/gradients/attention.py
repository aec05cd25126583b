"""The gradient of attention."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from graphsim.ops.attention import Attention, KvCache
from graphsim.ops.base import Work
from graphsim.ops.gradients.gradient import Gradient
from graphsim.units import Num


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class KeysAndValues(KvCache):
    """Keys and values of all tokens, in training: without a cache, and nothing is moved."""

    launched: ClassVar[bool] = False

    def work(self) -> Work:
        """No work."""
        return Work()

    @property
    def state_bytes(self) -> Num:
        """No state outlives the step."""
        return 0.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AttentionBackward(Gradient, Attention):
    """dq, dk and dv in one kernel, as parts `q`, `k` and `v`; sizes as of the attention.

    recomputes: whether it computes the scores again (FlashAttention-2, arXiv 2307.08691, section 3.1.2: five GEMMs
        for the forward's two) or reads them from memory (four)
    """

    recomputes: bool = True

    def work(self) -> Work:
        """dv = p^T do, dp = do v^T, dq = ds k, dk = ds^T q, and s = q k^T where it is computed again."""
        act = self.activations.bytes
        queries, keys = self.query_tokens * self.heads, self.kv_tokens * self.kv_heads
        width = self.head_dim + self.value_dim
        products = (3.0 if self.recomputes else 2.0) * self.head_dim + 2.0 * self.value_dim
        scores = 0.0 if self.recomputes else 2.0 * act * self.heads * self.pairs
        return Work(
            flops=2.0 * self.heads * products * self.pairs,
            vector_flops=(16.0 if self.soft_cap else 8.0) * self.heads * self.pairs,
            input_bytes=(queries * (self.head_dim + 2.0 * self.value_dim) + keys * width) * act + scores,
            write_bytes=(queries * self.head_dim + keys * width) * act,
        )

    @property
    def out_rows(self) -> Num | None:
        """None: queries and keys differ in number."""
        return np.minimum(self.query_tokens, 1.0) * (self.query_tokens + self.kv_tokens)

    @property
    def out_elems(self) -> Num:
        """All three gradients."""
        return sum(self.out_parts.values(), start=0.0)

    @property
    def out_parts(self) -> dict[str, Num]:
        """`q`, `k` and `v`, and the table that was added to the scores."""
        keys = self.kv_tokens * self.kv_heads
        return {
            "q": self.query_tokens * self.heads * self.head_dim,
            "k": keys * self.head_dim,
            "v": keys * self.value_dim,
            "biases": self.biases * np.minimum(self.query_tokens, 1.0),
        }

    @property
    def in_elems(self) -> Num | None:
        """Not checked: what it reads is kept in several storages."""
        return None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MlaAttentionBackward(AttentionBackward):
    """The same where keys and queries are put together of a part of each head, `plain` wide, and a rotated one.

    All heads share the rotated part of the keys, whose gradient is summed over them.
    """

    plain: Num = 0.0

    @property
    def out_parts(self) -> dict[str, Num]:
        """As the forward pass takes them: queries, rotated queries and keys, keys, values."""
        queries, keys, turned = self.query_tokens * self.heads, self.kv_tokens * self.heads, self.head_dim - self.plain
        return {
            "q_plain": queries * self.plain,
            "q_rotated": queries * turned,
            "k_rotated": self.kv_tokens * turned,
            "k_plain": keys * self.plain,
            "v": keys * self.value_dim,
        }
