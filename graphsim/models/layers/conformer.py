"""Conformer (arXiv 2005.08100): audio layers with attention between two half MLPs and a convolution."""

from __future__ import annotations

import math
from dataclasses import dataclass

from graphsim.models.layers.base import Layer, Projection, Scope
from graphsim.ops import Activation, Conv2d, DepthwiseConv, Norm, Patches


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvNames:
    """Modules of the convolution. `point`: of a second GEMM after it, "" where there is none; `norm`: likewise."""

    up: str
    down: str
    point: str = ""
    norm: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvolutionModule(Layer):
    """A GEMM to twice `inner`, a gate, `taps` taps over each channel, an activation, a GEMM back.

    learned: whether both halves of the gate have a learned vector
    times: channels of the taps for each of the gate's
    bias: of the taps
    """

    inner: int
    taps: int
    times: int = 1
    learned: bool = False
    bias: bool = True
    names: ConvNames

    def build(self, scope: Scope, x: str) -> str:
        """Rows -> rows."""
        rows, names, wide = scope.tokens, self.names, self.inner * self.times
        x = scope.linear(_point(names.up, 2 * self.inner, scope.hidden), x)
        gate = Activation(
            elems=rows * self.inner, reads=2.0, steps=5.0, learned=2.0 * self.inner if self.learned else 0.0
        )
        x = scope.add("glu", gate, [x])
        taps = DepthwiseConv(rows=rows, channels=wide, taps=float(self.taps), stride=1.0 / self.times, bias=self.bias)
        x = scope.add("depthwise", taps, [x])
        if names.point:
            x, wide = scope.linear(_point(names.point, self.inner, wide), x), self.inner
        if names.norm:
            norm = Norm(rows=rows, width=wide, vectors=2, module=f"{scope.prefix}{names.norm}")
            x = scope.add("conv_norm", norm, [x])
        x = scope.add("conv_act", Activation(elems=rows * wide, steps=4.0), [x])
        return scope.linear(_point(names.down, int(scope.hidden), wide), x)


def _point(name: str, n: int, k: object) -> Projection:
    """A convolution of one tap, which is no linear layer to PEFT's all-linear."""
    return Projection(name=name, n=n, k=k, bias=True, linear=False, quantised=False)  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True, kw_only=True)
class SubsamplingStem(Layer):
    """Frames of `bands` bands, halved `times` times in both directions by convolutions of 3 x 3 taps, then a GEMM.

    channels: of the convolutions, of which all but the first are depthwise and followed by a GEMM
    """

    bands: int
    times: int
    channels: int
    out: str = "out"
    conv: str = "conv"

    def build(self, scope: Scope, x: str = "") -> str:
        """Sound is padded to whole rows."""
        rows, channels, bands = scope.tokens * 2.0**self.times, self.channels, self.bands
        x = scope.add("mel", Patches(rows=rows, width=bands), [])
        for i in range(self.times):
            rows, before, bands = rows / 2.0, bands, math.floor((bands - 1) / 2 + 1)
            cells, stride = rows * bands, 2.0 * before / bands
            if i == 0:
                first = Conv2d(
                    m=cells, n=channels, k=9.0, taps=9.0, stride=stride, bias=True, linear=False,
                    weights=scope.activations, module=f"{scope.prefix}{self.conv}.0",
                )  # fmt: skip
                x = scope.add("conv", first, [x])
            else:
                path = f"{scope.prefix}{self.conv}.{3 * i - 1}"
                own = DepthwiseConv(rows=cells, channels=channels, taps=9.0, stride=stride, parameter=path)
                x = scope.add("depthwise", own, [x])
                x = scope.linear(_point(f"{self.conv}.{3 * i}", channels, channels), x, m=cells, name="pointwise")
            x = scope.add("conv_act", Activation(elems=cells * channels, steps=1.0), [x])
        last = Projection(name=self.out, n=int(scope.hidden), k=channels * bands, bias=True, quantised=False)
        return scope.linear(last, x)
