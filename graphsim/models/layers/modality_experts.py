"""Separate experts for each modality (ERNIE 4.5 VL): text tokens choose among one set, image tokens among another.

A step of text reaches the first set only; the other is in memory.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from graphsim.models.layers.base import Layer, Scope
from graphsim.models.layers.mlp import Mlp
from graphsim.models.layers.moe import Moe
from graphsim.models.phase import prefill
from graphsim.ops import Add, Join


@dataclass(frozen=True, slots=True, kw_only=True)
class ModalityExperts(Layer):
    """shared: an MLP for tokens of either kind."""

    text: Moe
    idle: Moe
    shared: Mlp | None = None

    def build(self, scope: Scope, x: str) -> str:
        """The idle set on no rows, then the one for text, then the shared MLP."""
        elems = scope.tokens * scope.hidden
        idle = self.idle.build(replace(scope, phase=prefill(0.0, 1.0)), x)
        out = scope.add("modalities", Join(elems=elems), [self.text.build(scope, x), idle])
        if self.shared is None:
            return out
        return scope.add("shared_add", Add(elems=elems), [out, self.shared.build(scope, x)])
