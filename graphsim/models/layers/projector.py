"""From a tower's width to the language model's: one linear layer or a few, with norms and activations between."""

from __future__ import annotations

from dataclasses import dataclass, replace

from graphsim.models.layers.base import Layer, Projection, Scope
from graphsim.models.layers.norm import NormLayer
from graphsim.ops import Activation, Part, Sharding


@dataclass(frozen=True, slots=True, kw_only=True)
class Linear:
    """A linear layer `n` wide.

    module: below the section's
    matrix: a bare weight that no adapter reaches
    """

    module: str
    n: int
    bias: bool = True
    matrix: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Projector(Layer):
    """norm -> linear -> activation -> linear … -> norm, on rows of the section's width.

    With two layers a tensor-parallel group shards the first over its outputs and the second over its inputs (vLLM 0.33,
    `model_executor/models/llava.py`, LlavaMultiModalProjector); a single one is replicated.
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


@dataclass(frozen=True, slots=True, kw_only=True)
class GatedProjector(Layer):
    """down(act(gate) * up) with gate and up in one weight, `inner` wide each, from the section's width to `out`.

    gate: a weight of its own in place of half of `up`
    linear: PEFT's all-linear reaches its projections
    """

    up: str
    down: str
    inner: int
    out: int
    gate: str = ""
    bias: bool = True
    linear: bool = True

    def build(self, scope: Scope, x: str) -> str:
        """Rows of the tower -> rows of the language model."""
        elems = scope.tokens * self.inner
        if self.gate:
            inner = [scope.linear(self._column(scope, name, self.inner), x) for name in (self.gate, self.up)]
        else:
            halves = tuple(Part(name=part, width=self.inner) for part in ("up", "gate"))
            inner = [scope.linear(replace(self._column(scope, self.up, 2 * self.inner), parts=halves), x)]
        act = scope.add("act_mul", Activation(elems=elems, reads=2.0, steps=4.0), inner)
        down = Projection(
            name=self.down,
            n=self.out,
            k=self.inner,
            bias=self.bias,
            split=Sharding.ROW,
            quantised=False,
            linear=self.linear,
        )
        return scope.linear(down, act)

    def _column(self, scope: Scope, name: str, n: int) -> Projection:
        return Projection(
            name=name, n=n, k=scope.hidden, bias=self.bias, split=Sharding.COLUMN, quantised=False, linear=self.linear
        )
