"""How the parts of a layer depend on the residual stream: in sequence, in parallel, with norms before or after."""

from __future__ import annotations

from dataclasses import dataclass, replace

from graphsim.models.layers.base import Layer, Scope
from graphsim.models.layers.norm import NormLayer
from graphsim.models.phase import IDLE
from graphsim.ops import Add


@dataclass(frozen=True, slots=True, kw_only=True)
class Branch:
    """One mixer with norms of its own before and after it."""

    layer: Layer
    norm: NormLayer | None = None
    post_norm: Layer | None = None

    def build(self, scope: Scope, x: str) -> str:
        """norm -> layer -> norm."""
        x = self.norm.build(scope, x) if self.norm else x
        x = self.layer.build(scope, x)
        return self.post_norm.build(scope, x) if self.post_norm else x


@dataclass(frozen=True, slots=True, kw_only=True)
class Residual:
    """x + branches(x): several branches read the same value and are summed (parallel attention and MLP)."""

    name: str
    branches: tuple[Branch, ...]
    norm: NormLayer | None = None
    post_norm: Layer | None = None

    def build(self, scope: Scope, x: str) -> str:
        """norm -> branches -> sum -> norm -> add to the residual."""
        elems = scope.tokens * scope.hidden
        h = self.norm.build(scope, x) if self.norm else x
        total, *others = [branch.build(scope, h) for branch in self.branches]
        for other in others:
            total = scope.add("branch_add", Add(elems=elems), [total, other])
        if self.post_norm:
            total = self.post_norm.build(scope, total)
        return scope.add(self.name, Add(elems=elems), [total, x])


@dataclass(frozen=True, slots=True, kw_only=True)
class Unused:
    """A part that the class instantiates but never runs: its weights are in memory, without any rows."""

    part: Residual | NormLayer

    def build(self, scope: Scope, x: str) -> str:
        """The part on no rows; the value is passed on unchanged."""
        self.part.build(replace(scope, phase=IDLE), x)
        return x


Part = Residual | NormLayer | Unused
"""A part of a layer: a sum on the residual stream, a norm of the stream itself, or unused weights."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Block(Layer):
    """One layer of the model: its parts in order."""

    parts: tuple[Part, ...]

    def build(self, scope: Scope, x: str) -> str:
        """Each part reads the previous one's result."""
        for part in self.parts:
            x = part.build(scope, x)
        return x
