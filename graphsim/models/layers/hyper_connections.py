"""Hyper-connections: a residual of several streams that each part collapses and then expands with its result.

arXiv 2409.19606; constrained to a manifold: arXiv 2512.24880, as DeepSeek-V4 has them.
"""

from __future__ import annotations

from dataclasses import dataclass

from graphsim.graph import Value
from graphsim.models.layers.base import Layer, Scope
from graphsim.models.layers.norm import NormLayer
from graphsim.ops import CollapseStreams, Elementwise, ExpandStreams


@dataclass(frozen=True, slots=True, kw_only=True)
class HyperConnection:
    """One part of a block between its collapse and its expansion; `name` is that of the mixing's module."""

    name: str
    norm: NormLayer
    layer: Layer


@dataclass(frozen=True, slots=True, kw_only=True)
class HyperBlock(Layer):
    """Parts in order on a residual of `streams` streams; iterations: of Sinkhorn's normalisation.

    mixed: whether the streams are mixed among each other after each part
    """

    parts: tuple[HyperConnection, ...]
    streams: int
    iterations: int = 0
    mixed: bool = True

    def build(self, scope: Scope, x: str) -> str:
        """For each part: collapse -> norm -> layer -> expand."""
        n, tokens = self.streams, scope.tokens
        for part in self.parts:
            collapse = CollapseStreams(
                tokens=tokens,
                streams=n,
                width=scope.hidden,
                projected=n * (2 + n if self.mixed else 2),
                iterations=self.iterations,
                scales=3 if self.mixed else 2,
                parameter=f"{scope.prefix}{part.name}.",
            )
            mixed = scope.add(part.name, collapse, [x])
            out = part.layer.build(scope, part.norm.build(scope, Value(mixed, ("collapsed",))))
            expand = ExpandStreams(tokens=tokens, streams=n, width=scope.hidden, mixed=self.mixed)
            x = scope.add(f"{part.name}.expand", expand, [out, x, Value(mixed, ("mixing",))])
        return x


@dataclass(frozen=True, slots=True, kw_only=True)
class SpreadStreams(Layer):
    """The embedding copied to every stream."""

    streams: int

    def build(self, scope: Scope, x: str) -> str:
        """Read once, written once for each stream."""
        copies = Elementwise(elems=scope.tokens * scope.hidden * self.streams, reads=1.0 / self.streams, steps=0.0)
        return scope.add("spread_streams", copies, [x])


@dataclass(frozen=True, slots=True, kw_only=True)
class MeanStreams(Layer):
    """The mean of the streams, before the model's last norm."""

    streams: int

    def build(self, scope: Scope, x: str) -> str:
        """Every stream is read once."""
        mean = Elementwise(elems=scope.tokens * scope.hidden, reads=float(self.streams), steps=float(self.streams))
        return scope.add("mean_streams", mean, [x])


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinStreams(Layer):
    """The streams summed into one by weights of their own, before the model's last norm."""

    streams: int
    module: str = "hc_head"

    def build(self, scope: Scope, x: str) -> str:
        """One collapse without an expansion."""
        join = CollapseStreams(
            tokens=scope.tokens, streams=self.streams, width=scope.hidden, projected=self.streams,
            parameter=f"model.{self.module}.hc_",
        )  # fmt: skip
        return scope.add(self.module, join, [x])
