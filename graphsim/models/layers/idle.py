"""Weights of a transformers class that serving does not use."""

from __future__ import annotations

from dataclasses import dataclass

from graphsim.models.layers.base import Layer, Projection, Scope
from graphsim.ops import Embedding, Join


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """A table of `entries`, or as many values of any shape where `width` is 1.

    name: of the module or parameter
    """

    name: str
    entries: int
    width: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Idle(Layer):
    """Linear layers that adapters reach, and further weights, on no rows."""

    linears: tuple[Projection, ...] = ()
    kept: tuple[Kept, ...] = ()

    def build(self, scope: Scope, x: str) -> str:
        """The weights, next to the unchanged value `x`."""
        held = [scope.linear(linear, x, m=0.0) for linear in self.linears]
        for kept in self.kept:
            path = f"{scope.prefix}{kept.name}"
            table = Embedding(tokens=0.0, entries=kept.entries, width=kept.width, whole=True, parameter=path)
            held.append(scope.add("idle_weights", table, []))
        return scope.add("idle", Join(elems=0.0), held)
