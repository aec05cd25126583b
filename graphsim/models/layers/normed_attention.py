"""Attention whose result is normalised before the output projection (sub-LN, arXiv 2210.06423)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from graphsim.graph import Value
from graphsim.models.layers.attention import SelfAttention
from graphsim.models.layers.base import Scope
from graphsim.ops import Norm


@dataclass(frozen=True, slots=True, kw_only=True)
class NormedAttention(SelfAttention):
    """One norm over all heads; `norm` is its module below the layer."""

    norm: str

    def attend(self, scope: Scope, q: Value, k: Value | None, v: Value | None, scores: Sequence[str] = ()) -> str:
        """Cache, attention, norm."""
        out = SelfAttention.attend(self, scope, q, k, v, scores)
        width = self.heads * self.values
        norm = Norm(rows=scope.tokens, width=width, local=True, groups=1, module=f"{scope.prefix}{self.norm}")
        return scope.add("attention_norm", norm, [out])
