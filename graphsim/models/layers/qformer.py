"""Q-Former (BLIP-2, arXiv 2301.12597): learned queries that attend to each other and to an image's rows."""

from __future__ import annotations

from dataclasses import dataclass, replace

from graphsim.models.layers.attention import AttentionNames
from graphsim.models.layers.base import Layer, Scope
from graphsim.models.layers.encoder_attention import EncoderAttention
from graphsim.models.layers.mlp import Mlp, MlpNames
from graphsim.models.layers.norm import NormLayer
from graphsim.models.layers.resampler import QueryAttention
from graphsim.ops import Add, Embedding


@dataclass(frozen=True, slots=True, kw_only=True)
class QFormer(Layer):
    """Post-norm layers: self-attention, in every `frequency`-th one attention to the image, a plain MLP.

    queries: how many
    width: of the image's rows, a class token among them
    intermediate: of the MLPs
    """

    queries: int
    depth: int
    heads: int
    intermediate: int
    frequency: int
    width: int
    norm: str = "qformer.layernorm"

    def build(self, scope: Scope, x: str) -> str:
        """Rows of the image -> answers to the queries."""
        hidden = int(scope.hidden)
        table = Embedding(
            tokens=scope.tokens,
            entries=self.queries,
            width=scope.hidden,
            whole=True,
            parameter=f"{scope.prefix}query_tokens",
        )
        rows = NormLayer(name=self.norm, kind="layer").build(scope, scope.add("query_tokens", table, []))
        heads, head_dim = self.heads, hidden // self.heads
        own = EncoderAttention(
            heads=heads, kv_heads=heads, head_dim=head_dim, qkv_bias=True, out_bias=True, names=_names("attention")
        )
        cross = QueryAttention(
            heads=heads, kv_heads=heads, head_dim=head_dim, width=self.width, beside=1, qkv_bias=True, out_bias=True,
            names=_names("crossattention"),
        )  # fmt: skip
        names = MlpNames(up="intermediate_query.dense", down="output_query.dense")
        mlp = Mlp(intermediate=self.intermediate, gated=False, bias=True, names=names)
        for i in range(self.depth):
            layer = replace(scope, prefix=f"{scope.prefix}qformer.encoder.layer.{i}.")
            rows = self._added(layer, rows, own.build(layer, rows), "attention.output.LayerNorm")
            if i % self.frequency == 0:
                rows = self._added(layer, rows, cross.attend(layer, rows, x), "crossattention.output.LayerNorm")
            rows = self._added(layer, rows, mlp.build(layer, rows), "output_query.LayerNorm")
        return rows

    def _added(self, scope: Scope, rows: str, change: str, norm: str) -> str:
        total = scope.add("residual", Add(elems=scope.tokens * scope.hidden), [change, rows])
        return NormLayer(name=norm, kind="layer").build(scope, total)


def _names(module: str) -> AttentionNames:
    inner = f"{module}.attention"
    return AttentionNames(q=f"{inner}.query", k=f"{inner}.key", v=f"{inner}.value", o=f"{module}.output.dense")
