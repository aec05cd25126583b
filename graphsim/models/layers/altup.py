"""Gemma 3n's block: alternating updates of several streams (AltUp, arXiv 2301.13310) and low-rank residuals (LAuReL,
arXiv 2411.07501) around attention, a gated MLP and an input of the layer's own.

transformers 5.24, `models/gemma3n/modeling_gemma3n.py`, `Gemma3nTextDecoderLayer` and `Gemma3nTextAltUp`.
"""

from __future__ import annotations

from dataclasses import dataclass

from graphsim.graph import Value
from graphsim.models.layers.base import Layer, Projection, Scope
from graphsim.models.layers.norm import NormLayer
from graphsim.models.layers.per_layer_input import PerLayerInput
from graphsim.ops import Activation, Add, AddToStreams, CorrectStreams, Gemm, Join, PredictStreams, SplitStreams
from graphsim.units import Num


@dataclass(frozen=True, slots=True, kw_only=True)
class AltUpBlock(Layer):
    """The layer works on one of `streams` streams; rank: of the low-rank residual; own: width of its own input."""

    attention: Layer
    mlp: Layer
    streams: int
    rank: int
    own: int

    def build(self, scope: Scope, x: str) -> str:
        """predict -> attention parallel to the low-rank residual -> MLP -> correct -> add the layer's own input."""
        tokens, n, elems = scope.tokens, self.streams, scope.tokens * scope.hidden
        first = scope.add("altup.split", self._split(scope), [x])
        weights = scope.linear(_altup("prediction_coefs", n * n, n), self._routed(scope, Value(first, ("0",))))
        predict = PredictStreams(tokens=tokens, streams=n, width=scope.hidden)
        predicted = scope.add("altup.predict", predict, [x, weights])
        active = Value(predicted, ("active",))
        normed = NormLayer(name="input_layernorm").build(scope, active)
        beside = self._low_rank(scope, normed)
        attended = NormLayer(name="post_attention_layernorm").build(scope, self.attention.build(scope, normed))
        sums = Activation(elems=elems, reads=3.0, steps=3.0)
        out = scope.add("attn_residual", sums, [attended, active, beside])
        fed = self.mlp.build(scope, NormLayer(name="pre_feedforward_layernorm").build(scope, out))
        fed = NormLayer(name="post_feedforward_layernorm").build(scope, fed)
        out = scope.add("mlp_residual", Add(elems=elems), [fed, out])
        weights = scope.linear(_altup("correction_coefs", n, n), self._routed(scope, out, again=True))
        correct = CorrectStreams(tokens=tokens, streams=n, width=scope.hidden, learned=scope.hidden)
        corrected = scope.add("altup.correct", correct, [predicted, out, weights])
        own = PerLayerInput(width=self.own).build(scope, Value(corrected, ("active",)))
        added = AddToStreams(tokens=tokens, streams=n, width=scope.hidden)
        return scope.add("per_layer_residual", added, [corrected, own])

    def _split(self, scope: Scope) -> SplitStreams:
        names = tuple(map(str, range(self.streams)))
        return SplitStreams(tokens=scope.tokens, streams=self.streams, width=scope.hidden, names=names)

    def _routed(self, scope: Scope, value: str | Value, *, again: bool = False) -> str:
        """Weights of the streams: a norm, a projection to one number for each, a tanh.

        again: reuses the weights of the first time, which count once
        """
        kind = "rms_no_weight" if again else "rms"
        normed = NormLayer(name="altup.router_norm", kind=kind).build(scope, value)
        if again:
            router = Gemm(m=scope.tokens, n=self.streams, k=scope.hidden, shared=True, weights=scope.precision.weights)
            routed = scope.add("modality_router", router, [normed])
        else:
            routed = scope.linear(_altup("modality_router", self.streams, scope.hidden), normed)
        return scope.add("altup.tanh", Activation(elems=scope.tokens * self.streams, steps=4.0), [routed])

    def _low_rank(self, scope: Scope, x: str) -> str:
        left = Projection(name="laurel.linear_left", n=self.rank, k=scope.hidden)
        right = Projection(name="laurel.linear_right", n=scope.hidden, k=self.rank)
        out = NormLayer(name="laurel.post_laurel_norm").build(scope, scope.linear(right, scope.linear(left, x)))
        return scope.add("laurel_residual", Add(elems=scope.tokens * scope.hidden), [out, x])


def _altup(name: str, n: int, k: Num) -> Projection:
    return Projection(name=f"altup.{name}", n=n, k=k)


@dataclass(frozen=True, slots=True, kw_only=True)
class SpreadAltUp(Layer):
    """The embedding, and a projection of it for each further stream, scaled to the embedding's length."""

    streams: int

    def build(self, scope: Scope, x: str) -> str:
        """One GEMM for each further stream; lengths are made equal."""
        made = [
            _rescaled(scope, scope.linear(_wide(scope, f"model.altup_projections.{i}"), x))
            for i in range(self.streams - 1)
        ]
        return scope.add("altup.streams", Join(elems=scope.tokens * scope.hidden * self.streams), [x, *made])


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinAltUp(Layer):
    """The mean of the first stream and a projection of each of the others, as long as the first."""

    streams: int

    def build(self, scope: Scope, x: str) -> str:
        """One GEMM for each further stream, and their mean."""
        names = tuple(map(str, range(self.streams)))
        split = SplitStreams(tokens=scope.tokens, streams=self.streams, width=scope.hidden, names=names)
        parts = scope.add("altup.split", split, [x])
        made: list[str | Value] = [Value(parts, ("0",))]
        for i, name in enumerate(names[1:]):
            projection = _wide(scope, f"model.altup_unembed_projections.{i}")
            made.append(_rescaled(scope, scope.linear(projection, Value(parts, (name,)))))
        mean = Activation(elems=scope.tokens * scope.hidden, reads=float(self.streams), steps=float(self.streams))
        return scope.add("altup.mean", mean, made)


def _wide(scope: Scope, name: str) -> Projection:
    return Projection(name=name, n=scope.hidden, k=scope.hidden)


def _rescaled(scope: Scope, value: str) -> str:
    """Scaled to another's length: squares, their sum, a product."""
    return scope.add("altup.rescale", Activation(elems=scope.tokens * scope.hidden, steps=4.0), [value])
