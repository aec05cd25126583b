"""Selective state-space layers: Mamba (arXiv 2312.00752) and Mamba-2 (arXiv 2405.21060)."""

from __future__ import annotations

from dataclasses import dataclass

from graphsim.graph import Value
from graphsim.models.layers.base import Layer, Projection, Scope
from graphsim.ops import Activation, CausalConv, Norm, Part, Scan, Sharding
from graphsim.units import Num


@dataclass(frozen=True, slots=True, kw_only=True)
class Mamba(Layer):
    """in_proj -> convolution -> x_proj, dt_proj -> scan -> gate -> out_proj.

    width: of the inner stream
    state: values per channel
    dt_rank: of the step's own projection
    norms: weights of norms of step, B and C (Jamba), 0 where these have none
    """

    width: int
    state: int
    dt_rank: int
    taps: int
    bias: bool = False
    conv_bias: bool = True
    norms: bool = False
    module: str = "mixer"

    def build(self, scope: Scope, x: str) -> str:
        """One selective state-space layer."""
        tokens = scope.tokens
        halves = (Part(name="x", width=self.width), Part(name="z", width=self.width))
        inner = self._linear(scope, "in_proj", 2 * self.width, scope.hidden, x, Sharding.COLUMN, self.bias, halves)
        conv = CausalConv(**scope.along, channels=self.width, taps=self.taps, bias=self.conv_bias)
        mixed = scope.add("conv1d", conv, [Value(inner, ("x",))])
        parts = tuple(
            Part(name=part, width=size) for part, size in (("dt", self.dt_rank), ("b", self.state), ("c", self.state))
        )
        n = self.dt_rank + 2 * self.state
        chosen = self._linear(scope, "x_proj", n, self.width, mixed, Sharding.ROW, False, parts)
        step, *shared = [Value(chosen, (part.name,)) for part in parts]
        if self.norms:
            step, *shared = [Value(self._norm(scope, part, Value(chosen, (part.name,)))) for part in parts]
        dt = self._linear(scope, "dt_proj", self.width, self.dt_rank, step, Sharding.COLUMN, True)
        scan = Scan(
            **scope.along,
            channels=self.width,
            state=self.state,
            inputs=2 * self.width + 2 * self.state,
            learned=self.width * (self.state + 1),
        )
        out = scope.add("selective_scan", scan, [mixed, dt, *shared])
        gate = Activation(elems=tokens * self.width, reads=2.0, steps=4.0)
        out = scope.add("gate", gate, [out, Value(inner, ("z",))])
        return self._linear(scope, "out_proj", scope.hidden, self.width, out, Sharding.ROW, self.bias)

    def _norm(self, scope: Scope, part: Part, value: Value) -> str:
        name = f"{part.name}_layernorm"
        module = f"{scope.prefix}{self.module}.{name}"
        return scope.add(name, Norm(rows=scope.tokens, width=part.width, module=module), [value])

    def _linear(
        self,
        scope: Scope,
        name: str,
        n: Num,
        k: Num,
        x: str | Value,
        split: Sharding,
        bias: bool,
        parts: tuple[Part, ...] = (),
    ) -> str:
        projection = Projection(
            name=f"{self.module}.{name}", n=n, k=k, split=split, bias=bias, tags=("attn",), parts=parts
        )
        return scope.linear(projection, x)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mamba2(Layer):
    """in_proj -> convolution -> chunked scan -> gated norm -> out_proj.

    bias, out_bias: of in_proj and of out_proj, which has in_proj's where None
    heads of head_dim channels share `groups` sets of B and C with `state` values, and as many means in the gated norm
    """

    heads: int
    head_dim: int
    groups: int
    state: int
    taps: int
    bias: bool = False
    out_bias: bool | None = None
    conv_bias: bool = True
    norm: bool = True
    linear: bool = True
    module: str = "mixer"

    @property
    def width(self) -> int:
        """Width of the inner stream."""
        return self.heads * self.head_dim

    def build(self, scope: Scope, x: str) -> str:
        """One state-space duality layer."""
        tokens = scope.tokens
        shared = 2 * self.groups * self.state
        parts = (
            Part(name="z", width=self.width, units=self.heads),
            Part(name="xbc", width=self.width + shared),
            Part(name="dt", width=self.heads, units=self.heads),
        )
        inner = self._linear(scope, "in_proj", 2 * self.width + shared + self.heads, scope.hidden, x, parts)
        conv = CausalConv(
            **scope.along, channels=self.width + shared, taps=self.taps, bias=self.conv_bias, mechanism="mamba2"
        )
        mixed = scope.add("conv1d", conv, [Value(inner, ("xbc",))])
        scan = Scan(
            **scope.along,
            channels=self.width,
            state=self.state,
            inputs=self.width + shared + self.heads,
            learned=3 * self.heads,
            matrix=True,
            mechanism="mamba2",
            heads=self.heads,
            key_heads=self.groups,
        )
        out = scope.add("chunk_scan", scan, [mixed, Value(inner, ("dt",))])
        gate = Activation(elems=tokens * self.width, reads=2.0, steps=4.0)
        out = scope.add("gate", gate, [out, Value(inner, ("z",))])
        if self.norm:
            module = f"{scope.prefix}{self.module}.norm"
            norm = Norm(rows=tokens, width=self.width, local=True, groups=self.groups, module=module)
            out = scope.add("gated_norm", norm, [out])
        down = Projection(
            name=f"{self.module}.out_proj",
            n=scope.hidden,
            k=self.width,
            split=Sharding.ROW,
            units=self.heads,
            bias=self.bias if self.out_bias is None else self.out_bias,
            tags=("attn", "out proj"),
            linear=self.linear,
        )
        return scope.linear(down, out)

    def _linear(self, scope: Scope, name: str, n: Num, k: Num, x: str, parts: tuple[Part, ...]) -> str:
        projection = Projection(
            name=f"{self.module}.{name}",
            n=n,
            k=k,
            split=Sharding.COLUMN,
            bias=self.bias,
            tags=("attn",),
            linear=self.linear,
            parts=parts,
        )
        return scope.linear(projection, x)
