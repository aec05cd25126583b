"""Gradients of short convolutions and of scans over a recurrent state; each input's is a part, `0`, `1`, …"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from graphsim.ops.base import Op, OpType, Work
from graphsim.ops.gradients.gradient import Gradient
from graphsim.units import Num


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ScanBackward(Gradient, Op):
    """The gradients of a scan's inputs. gives: elements of each input.

    inputs, learned, matrix, mechanism: as of the scan
    """

    op_type: ClassVar[OpType] = OpType.SCAN
    family: ClassVar[str] = ""

    tokens: Num
    channels: Num
    state: Num
    inputs: Num
    learned: Num = 0.0
    matrix: bool = False
    mechanism: str = ""
    gives: tuple[Num, ...] = ()

    def work(self) -> Work:
        """States are recomputed, and each multiplication has two gradients: three times the forward's six per value.

        Mamba, arXiv 2312.00752, section 3.3.2 (recomputation).
        """
        act = self.activations.bytes
        products = 18.0 * self.tokens * self.channels * self.state
        return Work(
            flops=products if self.matrix else 0.0,
            vector_flops=0.0 if self.matrix else products,
            weight_bytes=self.learned * act * np.minimum(self.tokens, 1.0),
            input_bytes=self.tokens * (self.inputs + self.channels) * act,
            write_bytes=self.out_elems * act,
        )

    @property
    def out_elems(self) -> Num:
        """Elements of all inputs."""
        return sum(self.gives, start=0.0)

    @property
    def out_parts(self) -> dict[str, Num]:
        """Elements of each input."""
        return {str(i): size for i, size in enumerate(self.gives)}

    def cut(self, ways: Num) -> ScanBackward:
        """Channels are distributed, with their inputs and weights."""
        return replace(
            self, channels=self.channels / ways, inputs=self.inputs / ways, learned=self.learned / ways,
            gives=tuple(size / ways for size in self.gives),
        )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ConvBackward(Gradient, Op):
    """The gradient of the inputs of a depthwise convolution: the same convolution with flipped filters. gives:
    elements of each.
    """

    op_type: ClassVar[OpType] = OpType.CONVOLUTION
    family: ClassVar[str] = ""

    tokens: Num
    channels: Num
    taps: Num
    gives: tuple[Num, ...] = ()

    def work(self) -> Work:
        """Reads and writes every value once."""
        elems, act = self.tokens * self.channels, self.activations.bytes
        return Work(
            vector_flops=2.0 * elems * self.taps,
            weight_bytes=self.channels * self.taps * act * np.minimum(self.tokens, 1.0),
            input_bytes=elems * act,
            write_bytes=elems * act,
        )

    @property
    def out_elems(self) -> Num:
        """Elements of all inputs."""
        return self.tokens * self.channels

    @property
    def out_parts(self) -> dict[str, Num]:
        """Elements of each input."""
        return {str(i): size for i, size in enumerate(self.gives)}

    def cut(self, ways: Num) -> ConvBackward:
        """Channels are distributed."""
        return replace(self, channels=self.channels / ways, gives=tuple(size / ways for size in self.gives))
