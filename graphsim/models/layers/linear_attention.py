"""Attention with a state instead of a cache: gated delta rule, lightning attention, RG-LRU, short convolutions."""

from __future__ import annotations

from dataclasses import dataclass

from graphsim.graph import Value
from graphsim.models.layers.base import Layer, Projection, Scope
from graphsim.ops import Activation, CausalConv, Norm, Part, Scan, Sharding
from graphsim.units import Num


def _column(name: str, n: Num, k: Num, parts: tuple[Part, ...] = (), bias: bool = False) -> Projection:
    return Projection(name=name, n=n, k=k, split=Sharding.COLUMN, bias=bias, tags=("attn",), parts=parts)


def _row(name: str, n: Num, k: Num, bias: bool = False) -> Projection:
    return Projection(name=name, n=n, k=k, split=Sharding.ROW, bias=bias, tags=("attn", "out proj"))


@dataclass(frozen=True, slots=True, kw_only=True)
class GatedDeltaNet(Layer):
    """Gated delta rule (arXiv 2412.06464): convolution of q, k, v, then a matrix-valued state per value head.

    separate: the projections are four weights (Qwen3.5), else two fused ones (Qwen3-Next)
    norm, out: names of the norm and of the last projection below the module
    """

    key_heads: int
    value_heads: int
    key_dim: int
    value_dim: int
    taps: int
    separate: bool = False
    module: str = "linear_attn"
    norm: str = "norm"
    out: str = "out_proj"

    def build(self, scope: Scope, x: str) -> str:
        """Projections -> convolution -> delta rule -> gated norm -> out_proj."""
        keys, values = self.key_heads * self.key_dim, self.value_heads * self.value_dim
        qkv, z, decay = self._project(scope, x, keys, values)
        tokens = scope.tokens
        conv = CausalConv(**scope.along, channels=2 * keys + values, taps=self.taps)
        mixed = scope.add("conv1d", conv, qkv)
        rule = Scan(
            **scope.along,
            channels=values,
            state=self.key_dim,
            inputs=2 * keys + values + 2 * self.value_heads,
            learned=2 * self.value_heads,
            matrix=True,
            mechanism="gdn",
            heads=self.value_heads,
            key_heads=self.key_heads,
        )
        out = scope.add("gated_delta_rule", rule, [mixed, *decay])
        norm = Norm(
            rows=tokens * self.value_heads,
            width=self.value_dim,
            local=True,
            units=self.value_heads,
            module=f"{scope.prefix}{self.module}.{self.norm}",
        )
        out = scope.add("gated_norm", norm, [out])
        out = scope.add("gate", Activation(elems=tokens * values, reads=2.0, steps=4.0), [out, z])
        return scope.linear(_row(f"{self.module}.{self.out}", scope.hidden, values), out)

    def _project(self, scope: Scope, x: str, keys: int, values: int) -> tuple[list[Value], Value, list[Value]]:
        """The inputs of the convolution, the gate, and the inputs of decay and learning rate."""
        name, wide = self.module, 2 * keys + values
        if self.separate:
            qkv = scope.linear(_column(f"{name}.in_proj_qkv", wide, scope.hidden), x)
            z = scope.linear(_column(f"{name}.in_proj_z", values, scope.hidden), x)
            decay = [scope.linear(_column(f"{name}.in_proj_{s}", self.value_heads, scope.hidden), x) for s in "ba"]
            return [Value(qkv)], Value(z), [Value(node) for node in decay]
        parts = (Part(name="qkv", width=wide), Part(name="z", width=values))
        fused = scope.linear(_column(f"{name}.in_proj_qkvz", wide + values, scope.hidden, parts), x)
        decay_node = scope.linear(_column(f"{name}.in_proj_ba", 2 * self.value_heads, scope.hidden), x)
        return [Value(fused, ("qkv",))], Value(fused, ("z",)), [Value(decay_node)]


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitDeltaNet(GatedDeltaNet):
    """The same with a projection of its own for each of q, k, v, both decays and the gate (Olmo Hybrid)."""

    norm: str = "o_norm"
    out: str = "o_proj"

    def _project(self, scope: Scope, x: str, keys: int, values: int) -> tuple[list[Value], Value, list[Value]]:
        """Six projections."""
        widths = {"q": keys, "k": keys, "v": values, "a": self.value_heads, "b": self.value_heads, "g": values}
        made = {
            part: Value(scope.linear(_column(f"{self.module}.{part}_proj", width, scope.hidden), x))
            for part, width in widths.items()
        }
        return [made[part] for part in "qkv"], made["g"], [made[part] for part in "ab"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LightningAttention(Layer):
    """Linear attention with fixed decay (arXiv 2401.04658), as MiniMax-Text-01 has it.

    Its kernels were not measured: they are priced as Mamba-2's, which also pass a decaying state from chunk to chunk,
    without an inversion.
    """

    heads: int
    head_dim: int
    module: str = "self_attn"

    def build(self, scope: Scope, x: str) -> str:
        """qkv -> recurrence -> norm -> gate -> out."""
        width = self.heads * self.head_dim
        qkv = scope.linear(_column(f"{self.module}.qkv_proj", 3 * width, scope.hidden), x)
        scan = Scan(
            **scope.along,
            channels=width,
            state=self.head_dim,
            inputs=3 * width,
            matrix=True,
            mechanism="mamba2",
            heads=self.heads,
            key_heads=self.heads,
        )
        out = scope.add("lightning_attention", scan, [qkv])
        module = f"{scope.prefix}{self.module}.norm"
        norm = Norm(rows=scope.tokens, width=width, local=True, groups=1, module=module)
        out = scope.add("norm", norm, [out])
        gate = scope.linear(_column(f"{self.module}.output_gate", width, scope.hidden), x)
        out = scope.add("gate", Activation(elems=scope.tokens * width, reads=2.0, steps=4.0), [out, gate])
        return scope.linear(_row(f"{self.module}.out_proj", scope.hidden, width), out)


@dataclass(frozen=True, slots=True, kw_only=True)
class ShortConvolution(Layer):
    """A gated short convolution (LFM2): in_proj to three streams, two of which gate the third."""

    taps: int
    bias: bool = False
    module: str = "conv"

    def build(self, scope: Scope, x: str) -> str:
        """in_proj -> gate -> convolution -> gate -> out_proj."""
        width = scope.hidden
        parts = tuple(Part(name=name, width=width) for name in ("b", "c", "x"))
        inner = scope.linear(_column(f"{self.module}.in_proj", 3 * width, width, parts, self.bias), x)
        elems = scope.tokens * width
        gated = scope.add("gate_in", Activation(elems=elems, reads=2.0, steps=1.0), [Value(inner, ("b", "x"))])
        conv = CausalConv(**scope.along, channels=width, taps=self.taps, bias=self.bias)
        mixed = scope.add("conv", conv, [gated])
        out = scope.add("gate_out", Activation(elems=elems, reads=2.0, steps=1.0), [mixed, Value(inner, ("c",))])
        return scope.linear(_row(f"{self.module}.out_proj", width, width, self.bias), out)


@dataclass(frozen=True, slots=True, kw_only=True)
class GatedRecurrence(Layer):
    """RG-LRU (Griffin, arXiv 2402.19427, section 2.4): two streams, one through a convolution and a recurrence."""

    width: int
    heads: int
    taps: int
    module: str = "temporal_block"

    def build(self, scope: Scope, x: str) -> str:
        """linear_x -> convolution -> recurrence, times the gate of linear_y -> linear_out."""
        tokens = scope.tokens
        y = scope.linear(_column(f"{self.module}.linear_y", self.width, scope.hidden, bias=True), x)
        inner = scope.linear(_column(f"{self.module}.linear_x", self.width, scope.hidden, bias=True), x)
        conv = CausalConv(**scope.along, channels=self.width, taps=self.taps, bias=True)
        mixed = scope.add("conv_1d", conv, [inner])
        block = self.width // self.heads
        gates = 2 * self.heads * block * (block + 1)
        scan = Scan(
            **scope.along,
            channels=self.width,
            state=1,
            inputs=self.width,
            learned=self.width + gates,
        )
        out = scope.add("rg_lru", scan, [mixed])
        out = scope.add("gate", Activation(elems=tokens * self.width, reads=2.0, steps=4.0), [out, y])
        return scope.linear(_row(f"{self.module}.linear_out", scope.hidden, self.width, bias=True), out)
