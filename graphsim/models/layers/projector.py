"""From a tower's width to the language model's: one linear layer or a few, with norms and activations between."""

from __future__ import annotations

from dataclasses import dataclass

from graphsim.models.layers.base import Layer, Projection, Scope
from graphsim.models.layers.norm import NormLayer
from graphsim.ops import Activation, Sharding


@dataclass(frozen=True, slots=True, kw_only=True)
class Linear:
    """A linear layer `n` wide. module: below the section's; matrix: a bare weight that no adapter reaches."""

    module: str
    n: int
    bias: bool = True
    matrix: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Projector(Layer):
    """norm -> linear -> activation -> linear … -> norm, on rows of the section's width.

    Of two layers a tensor-parallel group cuts the first over its outputs and the second over its inputs (vLLM 0.33,
    `model_executor/models/llava.py`, LlavaMultiModalProjector); one alone is kept whole.
    """

    linears: tuple[Linear, ...]
    norm: NormLayer | None = None
    behind: NormLayer | None = None

    def build(self, scope: Scope, x: str) -> str:
        """Rows of the tower -> rows of the language model."""
        x = self.norm.build(scope, x) if self.norm else x
        width = scope.hidden
        for i, linear in enumerate(self.linears):
            if i:
                x = scope.add("act", Activation(elems=scope.tokens * width, steps=4.0), [x])
            splits = (Sharding.COLUMN, Sharding.ROW) if len(self.linears) == 2 else (Sharding.REPLICATED,) * (i + 1)
            projection = Projection(
                name=linear.module, n=linear.n, k=width, bias=linear.bias, bare=linear.matrix, split=splits[i],
                quantised=False,
            )  # fmt: skip
            x = scope.linear(projection, x)
            width = linear.n
        return self.behind.build(scope, x) if self.behind else x
