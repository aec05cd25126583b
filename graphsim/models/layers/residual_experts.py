"""Experts in parallel with a dense block (Snowflake Arctic): they read the attention's input, and their result is
added after the MLP.
"""

from __future__ import annotations

from dataclasses import dataclass

from graphsim.models.layers.base import Layer, Scope
from graphsim.models.layers.block import Branch, Residual
from graphsim.ops import Add


@dataclass(frozen=True, slots=True, kw_only=True)
class ResidualExperts(Layer):
    """h = x + attention(x); h + MLP(h) + experts(x)."""

    attention: Residual
    mlp: Branch
    experts: Branch

    def build(self, scope: Scope, x: str) -> str:
        """The attention's residual, then both feed-forward parts."""
        elems = scope.tokens * scope.hidden
        h = self.attention.build(scope, x)
        beside = scope.add("branch_add", Add(elems=elems), [self.mlp.build(scope, h), self.experts.build(scope, x)])
        return scope.add("mlp_residual", Add(elems=elems), [beside, h])
