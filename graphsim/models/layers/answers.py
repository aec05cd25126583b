"""The end of a model without generation: a classifier's scores, or the hidden states."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from graphsim.models.layers.base import Layer, Projection, Scope
from graphsim.models.layers.norm import NormLayer
from graphsim.ops import Activation, TakeRows
from graphsim.units import Num


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """One linear layer of a head: its module, its outputs, whether it has a bias."""

    module: str
    outputs: int
    bias: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer(Layer):
    """Final norm, the needed rows, and linear layers with an activation between them.

    scores: none of an embedding model, whose answer is the state of the last token
    pooler: module of a linear of the first token alone, as BERT and its kin have, which PEFT's all-linear reaches
    first: the answer is that of the first token, as after a pooler, instead of the last one
    per_token: every token has its answer (token classification, extractive question answering)
    projection: of every state to `width` before all of it (OPT-350M's, part of its class without a head)
    """

    generates: ClassVar[bool] = False

    scores: tuple[Score, ...] = ()
    per_token: bool = False
    pooler: str = ""
    first: bool = False
    projection: str = ""
    width: int = 0
    norm: NormLayer | None = None
    tied: bool = False

    def build(self, scope: Scope, x: str) -> str:
        """Residual stream -> one answer per sequence or token."""
        out = self.norm.build(scope, x) if self.norm else x
        if self.pooler or self.first:
            out = scope.add("first_tokens", TakeRows(rows=scope.phase.sequences, width=scope.hidden), [out])
            return self._scored(scope, self._pooled(scope, out), scope.phase.sequences, scope.hidden)
        width = scope.hidden
        if self.projection:
            width = float(self.width)
            down = Projection(name=self.projection, n=width, k=scope.hidden, quantised=False)
            out = scope.linear(down, out, m=scope.tokens)
        rows = scope.tokens if self.per_token else scope.phase.logit_rows
        if not self.per_token and not scope.phase.all_logits:
            out = scope.add("last_tokens", TakeRows(rows=rows, width=width), [out])
        return self._scored(scope, out, rows, width)

    def _scored(self, scope: Scope, out: str, rows: Num, width: Num) -> str:
        for i, score in enumerate(self.scores):
            if i:
                out = scope.add("score_act", Activation(elems=rows * width), [out])
            layer = Projection(
                name=score.module, n=score.outputs, k=width, bias=score.bias, linear=False, quantised=False
            )
            out, width = scope.linear(layer, out, m=rows), float(score.outputs)
        return out

    def _pooled(self, scope: Scope, x: str) -> str:
        if not self.pooler:
            return x
        first = scope.phase.sequences
        linear = Projection(name=self.pooler, n=scope.hidden, k=scope.hidden, bias=True, quantised=False)
        out = scope.linear(linear, x, m=first, name="pooler")
        return scope.add("pooler_act", Activation(elems=first * scope.hidden, steps=4.0), [out])
