"""The ends of a model: embeddings, final norm, output head."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from graphsim.models.layers.base import Layer, Projection, Scope
from graphsim.models.layers.norm import NormLayer
from graphsim.ops import Activation, Add, Embedding, Gemm, Sample, Sharding, TakeRows

TIED = "the output head is the embedding"
"""How the note begins on a tied head for which a checkpoint may still hold weights."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stem(Layer):
    """Token embedding, learned positions if `positions` > 0, a norm, a projection from `width` to hidden.

    width: of the embedding, the hidden size if 0
    shared: the table belongs to another stem
    spread: after all of it, to the streams of the residual where there are several
    """

    vocab_size: int
    positions: int = 0
    width: int = 0
    norm: NormLayer | None = None
    module: str = "model.embed_tokens"
    position_module: str = "model.embed_positions"
    projection: str = ""
    shared: bool = False
    spread: Layer | None = None

    def build(self, scope: Scope, x: str = "") -> str:
        """Token ids -> values of the residual stream."""
        width = self.width or scope.hidden
        out = scope.add(
            self.module.rsplit(".", 1)[-1],
            Embedding(
                tokens=scope.tokens,
                entries=self.vocab_size,
                width=width,
                shared=self.shared,
                module=self.module,
                weights=scope.table_format(self.module),
            ),
            [],
        )
        if self.projection:
            out = scope.linear(Projection(name=self.projection, n=scope.hidden, k=width, quantised=False), out)
        if self.positions:
            table = Embedding(
                tokens=scope.tokens,
                entries=self.positions,
                width=scope.hidden,
                whole=True,
                module=self.position_module,
                weights=scope.table_format(self.position_module),
            )
            positions = scope.add(self.position_module.rsplit(".", 1)[-1], table, [])
            out = scope.add("embed_add", Add(elems=scope.tokens * scope.hidden), [out, positions])
        out = self.norm.build(scope, out) if self.norm else out
        return self.spread.build(scope, out) if self.spread else out


@dataclass(frozen=True, slots=True, kw_only=True)
class Head(Layer):
    """Final norm, projection to the vocabulary on the positions that need logits, sampling.

    tied: the weights are the token embedding's
    own_if_stored: unless a checkpoint holds others
    soft_cap: logits pass a scaled tanh (Gemma 2, arXiv 2408.00118, section 2)
    penalties: the published generation settings penalise repetition, which engines apply to all logits
    width: the values are projected to it first (the embedding's width, where that is not the hidden size)
    linear: PEFT's all-linear reaches it, as where a class does not name it as its output embedding
    join: before all of it, from the streams of the residual where there are several
    """

    generates: ClassVar[bool] = True
    """Whether it generates tokens."""

    vocab_size: int
    tied: bool = False
    own_if_stored: bool = False
    bias: bool = False
    soft_cap: bool = False
    penalties: bool = False
    width: int = 0
    linear: bool = False
    norm: NormLayer | None = None
    module: str = "lm_head"
    projection: str = ""
    join: Layer | None = None

    def build(self, scope: Scope, x: str) -> str:
        """Residual stream -> logits -> token ids."""
        rows = scope.phase.logit_rows
        x = self.join.build(scope, x) if self.join else x
        out = self.norm.build(scope, x) if self.norm else x
        if not scope.phase.all_logits:
            out = scope.add("last_tokens", TakeRows(rows=rows, width=scope.hidden), [out])
        width = self.width or scope.hidden
        if self.projection:
            down = Projection(name=self.projection, n=width, k=scope.hidden, quantised=False)
            out = scope.linear(down, out, m=rows)
        logits = Gemm(
            m=rows,
            n=self.vocab_size,
            k=width,
            split=Sharding.COLUMN,
            bias=self.bias,
            shared=self.tied,
            weights=scope.format_of(self.module, scope.activations),
            module=self.module,
            linear=self.linear,
            head=True,
        )
        out = scope.add(self.module.rsplit(".", 1)[-1], logits, [out])
        if self.soft_cap:
            out = scope.add("logit_soft_cap", Activation(elems=rows * self.vocab_size, steps=6.0), [out])
        return scope.add("sample", Sample(rows=rows, vocab=self.vocab_size, penalties=self.penalties), [out])
