"""Zamba's shared transformer (arXiv 2405.16712, section 2): all of its uses share the same weights.

Each head of its Mamba layers has its own selection projections.
"""

from __future__ import annotations

from dataclasses import dataclass

from graphsim.graph import Value
from graphsim.models.layers.base import Layer, Projection, Scope
from graphsim.models.layers.shared_transformer import SharedTransformerLayer
from graphsim.ops import Activation, CausalConv, HeadGemm, Part, Scan, Sharding
from graphsim.units import Num

_ROOT = "shared_transf"


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedAttentionLayer(SharedTransformerLayer):
    """The shared transformer's result, projected, joins the input of the Mamba layer."""

    def _linear(
        self,
        scope: Scope,
        name: str,
        n: Num,
        k: Num,
        x: str | Value,
        split: Sharding,
        units: int = 0,
        bias: bool = False,
    ) -> str:
        projection = Projection(
            name=f"{_ROOT}.{name}",
            n=n,
            k=k,
            split=split,
            units=units,
            bias=bias,
            tags=("attn",) if name.startswith("self_attn") else ("ffn",),
            shared=not self.owns,
        )
        return scope.linear(projection, x)

    def _feed(self, scope: Scope, x: str) -> str:
        wide, module = self.intermediate, "feed_forward"
        inner = [
            self._linear(scope, f"{module}.{part}_proj", wide, scope.hidden, x, Sharding.COLUMN)
            for part in ("gate", "up")
        ]
        act = scope.add("act_mul", Activation(elems=scope.tokens * wide, reads=2.0, steps=4.0), inner)
        return self._linear(scope, f"{module}.down_proj", scope.hidden, wide, act, Sharding.ROW)


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadedMamba(Layer):
    """Mamba in `heads` heads: what each selects is projected from its own channels by weights of its own."""

    heads: int
    width: int
    state: int
    dt_rank: int
    taps: int
    bias: bool = False
    conv_bias: bool = True
    module: str = "mamba"

    def build(self, scope: Scope, x: str) -> str:
        """in_proj -> convolution -> selection of each head -> scan -> gate -> out_proj."""
        tokens = scope.tokens
        halves = tuple(Part(name=part, width=self.width, units=self.heads) for part in ("x", "z"))
        first = Projection(
            name=f"{self.module}.in_proj",
            n=2 * self.width,
            k=scope.hidden,
            split=Sharding.COLUMN,
            units=self.heads,
            bias=self.bias,
            tags=("attn",),
            parts=halves,
        )
        inner = scope.linear(first, x)
        conv = CausalConv(**scope.along, channels=self.width, taps=self.taps, bias=self.conv_bias)
        mixed = scope.add("conv1d", conv, [Value(inner, ("x",))])
        head, weights = self.width / self.heads, scope.precision.weights
        step, shared = (HeadGemm(m=tokens, n=n, k=head, heads=self.heads, weights=weights) for n in self._selected)
        dt = HeadGemm(m=tokens, n=head, k=self.dt_rank, heads=self.heads, weights=weights)
        steps = scope.add("dt_proj", dt, [scope.add("x_proj.dt", step, [mixed])])
        scan = Scan(
            **scope.along,
            channels=self.width,
            state=self.state,
            inputs=2 * self.width + 2 * self.state * self.heads,
            learned=self.width * (self.state + 2),  # A, D and the bias of the step
        )
        out = scope.add("selective_scan", scan, [mixed, steps, scope.add("x_proj.bc", shared, [mixed])])
        gate = Activation(elems=tokens * self.width, reads=2.0, steps=4.0)
        out = scope.add("gate", gate, [out, Value(inner, ("z",))])
        last = Projection(
            name=f"{self.module}.out_proj",
            n=scope.hidden,
            k=self.width,
            split=Sharding.ROW,
            units=self.heads,
            bias=self.bias,
            tags=("attn",),
        )
        return scope.linear(last, out)

    @property
    def _selected(self) -> tuple[int, int]:
        """Rank of the step, and B and C together, of each head."""
        return self.dt_rank, 2 * self.state
