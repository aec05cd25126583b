"""The feed-forward part of a block: plain (two projections) or gated (GLU variants, arXiv 2002.05202)."""

from __future__ import annotations

from dataclasses import dataclass

from graphsim.graph import Value
from graphsim.models.layers.base import Layer, Projection, Scope
from graphsim.ops import Activation, Norm, Part, Sharding


@dataclass(frozen=True, slots=True, kw_only=True)
class MlpNames:
    """Module names below the layer. A `fused` name replaces gate and up by one weight."""

    gate: str = "mlp.gate_proj"
    up: str = "mlp.up_proj"
    down: str = "mlp.down_proj"
    fused: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mlp(Layer):
    """down(act(gate x) * up x), or down(act(up x)) where not gated.

    learned: weights of the activation itself (xIELU has two)
    linear: PEFT's all-linear reaches its projections
    norm: module of a norm after the activation, if there is one
    """

    intermediate: int
    gated: bool = True
    bias: bool = False
    learned: int = 0
    linear: bool = True
    norm: str = ""
    names: MlpNames = MlpNames()

    def build(self, scope: Scope, x: str) -> str:
        """x -> gate, up -> activation -> down."""
        inner = self._inputs(scope, x)
        act = Activation(
            elems=scope.tokens * self.intermediate,
            reads=2.0 if self.gated else 1.0,
            steps=4.0,
            learned=self.learned,
        )
        name = scope.add("act_mul" if self.gated else "act", act, inner)
        if self.norm:
            module = f"{scope.prefix}{self.norm}"
            norm = Norm(rows=scope.tokens, width=self.intermediate, local=True, groups=1, module=module)
            name = scope.add("act_norm", norm, [name])
        down = Projection(
            name=self.names.down,
            n=scope.hidden,
            k=self.intermediate,
            split=Sharding.ROW,
            bias=self.bias,
            tags=("ffn", "down", "w2"),
            linear=self.linear,
        )
        return scope.linear(down, name)

    def _inputs(self, scope: Scope, x: str) -> list[Value]:
        if self.gated and self.names.fused:
            node = scope.linear(self._column(scope, self.names.fused, ("up+gate",), fused=True), x)
            return [Value(node)]
        if not self.gated:
            return [Value(scope.linear(self._column(scope, self.names.up, ("up", "up+gate", "w1")), x))]
        gate = self._column(scope, self.names.gate, ("gate", "up+gate", "w1"))
        up = self._column(scope, self.names.up, ("up", "up+gate", "w3"))
        return [Value(scope.linear(gate, x)), Value(scope.linear(up, x))]

    def _column(self, scope: Scope, name: str, tags: tuple[str, ...], fused: bool = False) -> Projection:
        halves = tuple(Part(name=part, width=self.intermediate) for part in ("gate", "up")) if fused else ()
        return Projection(
            name=name,
            n=self.intermediate * (2 if fused else 1),
            k=scope.hidden,
            split=Sharding.COLUMN,
            bias=self.bias,
            tags=("ffn", *tags),
            linear=self.linear,
            pack="gate_up_proj" if self.gated and not fused else "",
            parts=halves,
        )
