"""Attention inside a tower: every row of a piece sees every other, or those of its window; nothing is cached."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from graphsim.graph import Value
from graphsim.models.layers.attention import SelfAttention
from graphsim.models.layers.base import Scope
from graphsim.models.layers.encoder import Grid
from graphsim.models.phase import Segment
from graphsim.ops import Attention
from graphsim.units import Num


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderAttention(SelfAttention):
    """Projections, rotary positions where there are any, attention in both directions, output projection.

    side: of a square window on the grid of patches, 0: all rows of a piece (Qwen2.5-VL, arXiv 2502.13923, section 2.1)
    padded: whether windows at the border are padded to full size (SAM, arXiv 2304.02643)
    """

    rope: bool = False
    side: int = 0
    padded: bool = False

    def _attend(self, scope: Scope, segment: Segment, values: list[Value], scores: Sequence[str]) -> str:
        count, pairs = self._windows(segment)
        attention = Attention(
            sequences=segment.sequences * count,
            query_tokens=segment.tokens,
            kv_tokens=segment.tokens,
            pairs=segment.sequences * pairs,
            heads=self.heads,
            kv_heads=self.kv_heads,
            head_dim=self.head_dim,
            value_dim=self.values,
            causal=False,
            kv=scope.activations,
        )
        return scope.add("attention", attention, [*values, *map(Value, scores)])

    def _windows(self, segment: Segment) -> tuple[Num, Num]:
        """Windows of a piece, and the query-key pairs in all of them."""
        if not self.side or not isinstance(segment, Grid):
            return 1.0, segment.new_tokens * segment.new_tokens
        (rows, high), (columns, wide) = (self._cut(length) for length in (segment.height, segment.width))
        return rows * columns, high * wide

    def _cut(self, length: float) -> tuple[float, float]:
        """Windows along one side of the grid, and the sum of the squares of their lengths."""
        whole, rest = divmod(length, self.side)
        if self.padded:
            return math.ceil(length / self.side), math.ceil(length / self.side) * float(self.side) ** 2
        return whole + (rest > 0), whole * float(self.side) ** 2 + rest**2
