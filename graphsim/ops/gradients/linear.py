"""Gradients of GEMMs: y = x w gives dx = dy w^T (dgrad) and dw = x^T dy (wgrad)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, cast

import numpy as np

from graphsim.ops.base import Sharding, Work
from graphsim.ops.formats import FORMATS, Format
from graphsim.ops.gradients.gradient import Gradient
from graphsim.ops.linear import Gemm, HeadGemm, Part, limited
from graphsim.units import Num

_TURNED = {Sharding.COLUMN: Sharding.ROW, Sharding.ROW: Sharding.COLUMN}


def turned(split: Sharding) -> Sharding:
    """How the transposed weights are cut: a column-parallel GEMM has a row-parallel gradient, and vice versa."""
    return _TURNED.get(split, split)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class InputGradient(Gradient, Gemm):
    """dx[m, n] = dy[m, k] @ w^T[k, n]: n are the inputs of the GEMM, k its outputs; the weights are that GEMM's.

    blocks: of block-diagonal weights
    output_parts: parts of the GEMM's outputs, which are cut by themselves
    """

    blocks: Num = 1.0
    output_parts: tuple[Part, ...] = ()

    def work(self) -> Work:
        """flops = 2mnk; reads w and dy, writes dx."""
        live = np.minimum(self.n * self.k, 1.0) * np.minimum(self.m, 1.0)
        act = self.activations.bytes
        return Work(
            flops=2.0 * self.m * self.n * self.k / self.blocks,
            weight_bytes=self.n * self.k / self.blocks * self.weights.bytes * live,
            input_bytes=self.m * self.k * act * live,
            write_bytes=self.m * self.n * act * live,
        )

    def cut(self, ways: Num) -> InputGradient:
        """As any GEMM; blocks that are distributed cut n and k at once."""
        if self.split is Sharding.ROW and self.output_parts:
            output_parts = tuple(part.cut(ways) for part in self.output_parts)
            return replace(self, k=sum((part.width for part in output_parts), start=0.0), output_parts=output_parts)
        if self.split is not Sharding.DEALT:
            return cast("InputGradient", Gemm.cut(self, ways))
        n, k = (size / limited(ways, self.units) for size in (self.n, self.k))
        return replace(self, n=n, k=k, blocks=np.maximum(self.blocks / ways, 1.0))

    def cut_tokens(self, ways: Num) -> InputGradient:
        """A share of the rows; every device has the weights."""
        return replace(self, m=self.m / ways)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class WeightGradient(Gradient, Gemm):
    """dw[m, n] = x^T[m, k] @ dy[k, n]: m are the inputs of the GEMM, n its outputs, k its rows.

    split: how the GEMM's weights are cut, and so their gradient
    gradients: the format in which it is written
    blocks: of block-diagonal weights
    output_parts: parts of the outputs, which are cut by themselves
    """

    ends: ClassVar[bool] = True

    gradients: Format = FORMATS["bf16"]
    blocks: Num = 1.0
    output_parts: tuple[Part, ...] = ()

    def work(self) -> Work:
        """flops = 2mnk; reads x and dy, writes dw."""
        rows = self.k * self.activations.bytes
        live = np.minimum(self.k, 1.0)
        return Work(
            flops=2.0 * self.m * self.n * self.k / self.blocks,
            input_bytes=rows * (self.m * np.minimum(self.n, 1.0) + self.n * np.minimum(self.m, 1.0)),
            write_bytes=self.m * self.n / self.blocks * self.gradients.bytes * live,
        )

    @property
    def out_rows(self) -> Num | None:
        """m, and none where no row came."""
        return self.m * np.minimum(self.k, 1.0)

    @property
    def out_elems(self) -> Num:
        """mn, and none where no row came."""
        return self.m * self.n / self.blocks * np.minimum(self.k, 1.0)

    @property
    def in_elems(self) -> Num | None:
        """x and dy, unless the weights are empty."""
        return self.k * (self.m + self.n) * np.minimum(self.m * self.n, 1.0)

    def cut(self, ways: Num) -> WeightGradient:
        """n / ways of a COLUMN split GEMM, m / ways of a ROW split one; both of blocks that are distributed."""
        if self.split is Sharding.DEALT:
            m, n = (size / limited(ways, self.units) for size in (self.m, self.n))
            return replace(self, m=m, n=n, blocks=np.maximum(self.blocks / ways, 1.0))
        if self.split is Sharding.ROW:
            return replace(self, m=self.m / limited(ways, self.units))
        if self.split is Sharding.COLUMN and self.output_parts:
            output_parts = tuple(part.cut(ways) for part in self.output_parts)
            return replace(self, n=sum((part.width for part in output_parts), start=0.0), output_parts=output_parts)
        return replace(self, n=self.n / limited(ways, self.units)) if self.split is Sharding.COLUMN else self

    def cut_tokens(self, ways: Num) -> WeightGradient:
        """A share of the rows: the result is a partial sum."""
        return replace(self, k=self.k / ways)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class HeadInputGradient(Gradient, HeadGemm):
    """dx = dy w^T of each head."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class HeadWeightGradient(Gradient, HeadGemm):
    """dw = x^T dy of each head: m are the inputs of the GEMM, n its outputs, k its rows."""

    ends: ClassVar[bool] = True

    def work(self) -> Work:
        """flops = 2 heads mnk; reads x and dy, writes dw."""
        act = self.activations.bytes * self.heads
        return Work(
            flops=2.0 * self.heads * self.m * self.n * self.k,
            input_bytes=act * self.k * (self.m + self.n) * np.minimum(self.m * self.n, 1.0),
            write_bytes=act * self.m * self.n * np.minimum(self.k, 1.0),
        )

    @property
    def in_elems(self) -> Num | None:
        """x and dy of each head."""
        return self.heads * self.k * (self.m + self.n)
