"""A layer only for sequences with rows of an encoder, as Llama 3.2 skips cross-attention without an image."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from graphsim.models.layers.base import Scope
from graphsim.models.layers.block import Block
from graphsim.ops import Join, SomeRows


@dataclass(frozen=True, slots=True, kw_only=True)
class SeeingBlock(Block):
    """A block on the sequences that read rows of an encoder; the others' values are unchanged.

    transformers 5.24, `models/mllama/modeling_mllama.py`, `MllamaTextModel.forward`
    """

    def build(self, scope: Scope, x: str) -> str:
        """Each part on those sequences."""
        segments = tuple(
            segment.part(segment.sequences * np.minimum(segment.source_tokens, 1.0)) for segment in scope.phase.segments
        )
        inner = replace(scope, phase=replace(scope.phase, segments=segments))
        seeing = scope.add("seeing", SomeRows(elems=inner.tokens * scope.hidden), [x])
        others = scope.add("others", SomeRows(elems=(scope.tokens - inner.tokens) * scope.hidden), [x])
        return scope.add("all", Join(elems=scope.tokens * scope.hidden), [Block.build(self, inner, seeing), others])
