"""Blocks whose parts read a mixture of the results of earlier blocks of layers (Kimi K3; AttnRes, arXiv 2603.15031).

vLLM 0.33, `models/kimi_k3/nvidia/model.py`, `KimiDecoderLayer`.
"""

from __future__ import annotations

from dataclasses import dataclass

from graphsim.models.layers.base import Layer, Scope
from graphsim.models.layers.norm import NormLayer
from graphsim.ops import AddToSum, MixSums, StartSums


@dataclass(frozen=True, slots=True, kw_only=True)
class DepthBlock(Layer):
    """Attention, then MLP; blocks: number of block sums before this layer; opens: whether it is the first of a block.

    slots: values that the residual has in all, a sum for each block and the running one
    """

    attention: Layer
    mlp: Layer
    slots: int
    blocks: int
    opens: bool

    def build(self, scope: Scope, x: str) -> str:
        """For each part: mix -> norm -> layer -> add to the running sum."""
        mixed = scope.add("self_attention_res", self._mix(scope, self.blocks), [x])
        out = self.attention.build(scope, NormLayer(name="input_layernorm").build(scope, mixed))
        x = scope.add("attn_residual", self._add(scope, self.opens), [out, x])
        mixed = scope.add("mlp_res", self._mix(scope, self.blocks + self.opens), [x])
        out = self.mlp.build(scope, NormLayer(name="post_attention_layernorm").build(scope, mixed))
        return scope.add("mlp_residual", self._add(scope), [out, x])

    def _mix(self, scope: Scope, blocks: int) -> MixSums:
        return MixSums(tokens=scope.tokens, slots=self.slots, width=scope.hidden, blocks=blocks)

    def _add(self, scope: Scope, closes: bool = False) -> AddToSum:
        return AddToSum(tokens=scope.tokens, slots=self.slots, width=scope.hidden, closes=closes)


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenSums(Layer):
    """The embedding as the running sum."""

    slots: int

    def build(self, scope: Scope, x: str) -> str:
        """No data is moved."""
        start = StartSums(tokens=scope.tokens, slots=self.slots, width=scope.hidden)
        return scope.add("open_sums", start, [x])


@dataclass(frozen=True, slots=True, kw_only=True)
class CloseSums(Layer):
    """A mixture of all blocks' sums and the running one, before the model's last norm."""

    slots: int

    def build(self, scope: Scope, x: str) -> str:
        """One mixture."""
        mix = MixSums(tokens=scope.tokens, slots=self.slots, width=scope.hidden, blocks=self.slots - 1)
        return scope.add("output_attn_res", mix, [x])
