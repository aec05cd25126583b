"""Per-layer embeddings of Gemma 3n and 4: every layer adds a gated projection of its own additional input."""

from __future__ import annotations

from dataclasses import dataclass

from graphsim.graph import Value
from graphsim.models.layers.base import Layer, Projection, Scope
from graphsim.models.layers.ends import Stem
from graphsim.models.layers.norm import NormLayer
from graphsim.ops import Activation, Add, Embedding, Norm


@dataclass(frozen=True, slots=True, kw_only=True)
class PerLayerStem(Layer):
    """The token embedding, and a second one with `width` elements for each of `layers` layers.

    The second is mixed with a projection of the first;
    `entries` rows of the second table; the table is read one row per token and never multiplied.
    prefix: of its modules' paths
    spread: after all of it, to the streams of the residual where there are several
    """

    base: Stem
    entries: int
    layers: int
    width: int
    prefix: str = "model."
    spread: Layer | None = None

    @property
    def vocab_size(self) -> int:
        """Entries of the token embedding."""
        return self.base.vocab_size

    def build(self, scope: Scope, x: str = "") -> str:
        """Token ids -> values of the residual stream; the layers' own inputs are computed as well."""
        out = self.base.build(scope)
        wide = self.layers * self.width
        module = f"{self.prefix}embed_tokens_per_layer"
        table = Embedding(
            tokens=scope.tokens, entries=self.entries, width=wide, module=module, weights=scope.table_format(module)
        )
        own = scope.add("embed_tokens_per_layer", table, [])
        projection = Projection(
            name=f"{self.prefix}per_layer_model_projection", n=wide, k=scope.hidden, quantised=False
        )
        mixed = scope.linear(projection, out)
        norm = Norm(rows=scope.tokens * self.layers, width=self.width, module=f"{self.prefix}per_layer_projection_norm")
        mixed = scope.add("per_layer_projection_norm", norm, [mixed])
        scope.add("per_layer_inputs", Add(elems=scope.tokens * wide), [mixed, own])
        out = scope.add("embed_scale", Activation(elems=scope.tokens * scope.hidden, reads=1.0, steps=1.0), [out])
        return self.spread.build(scope, out) if self.spread else out


@dataclass(frozen=True, slots=True, kw_only=True)
class PerLayerInput(Layer):
    """gate(x) times the layer's own input, projected back and normed."""

    width: int

    def build(self, scope: Scope, x: str | Value) -> str:
        """x -> gate -> times own input -> projection -> norm."""
        gate = scope.linear(Projection(name="per_layer_input_gate", n=self.width, k=scope.hidden), x)
        act = Activation(elems=scope.tokens * self.width, reads=1.0, steps=5.0)
        own = scope.add("per_layer_gate", act, [gate])
        out = scope.linear(Projection(name="per_layer_projection", n=scope.hidden, k=self.width), own)
        return NormLayer(name="post_per_layer_input_norm").build(scope, out)
