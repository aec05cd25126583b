"""Pooling of several tokens' keys and values into one entry of a compressed cache (DeepSeek-V4)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from graphsim.ops.base import Op, OpType, Sharding, Work
from graphsim.ops.saved import Saved
from graphsim.units import Num

STATE_BYTES = 4.0
"""Rows that wait for their window are kept in fp32 (vLLM 0.33, `models/deepseek_v4/compressor.py`)."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PoolWindows(Op):
    """Every `ratio` tokens become one entry of `width` elements: a softmax over the window weighs its tokens.

    series: 2 where windows overlap by half, so that each token contributes a row to its own window and one to the
        next; 1 otherwise. Takes this number of rows of values per token, and as many of weights
    Modelling of transformers 5.24, `DeepseekV4CSACompressor` and `DeepseekV4HCACompressor`.
    """

    op_type: ClassVar[OpType] = OpType.ELEMENTWISE
    sharding: ClassVar[Sharding] = Sharding.WHOLE

    sequences: Num
    tokens: Num
    ratio: Num
    width: Num
    series: Num = 1.0

    @property
    def row(self) -> Num:
        """Elements per token: values and weights of each series."""
        return 2.0 * self.series * self.width

    @property
    def window(self) -> Num:
        """Tokens per entry."""
        return self.series * self.ratio

    def work(self) -> Work:
        """A softmax of five steps, a product and a sum per pooled element; rows that wait are written and read back."""
        pooled = self.tokens * self.series
        waiting = np.minimum(self.tokens, self.sequences * self.window)
        held = np.minimum(pooled, self.sequences * self.window)
        act = self.activations.bytes
        return Work(
            vector_flops=7.0 * pooled * self.width,
            weight_bytes=self.weight_storage_bytes * np.minimum(self.tokens, 1.0),
            input_bytes=self.tokens * self.row * act + held * self.row * STATE_BYTES,
            write_bytes=self.out_elems * act + waiting * self.row * STATE_BYTES,
        )

    @property
    def parameters(self) -> Num:
        """Biases of a token's weights, by its position in the window."""
        return self.ratio * self.series * self.width

    @property
    def weight_storage_bytes(self) -> Num:
        """Bytes of the weights in fp32."""
        return self.parameters * 4.0

    @property
    def state_bytes(self) -> Num:
        """A window of rows for each sequence (vLLM's `CompressorStateCache`)."""
        return self.sequences * self.window * self.row * STATE_BYTES

    @property
    def out_elems(self) -> Num:
        """One entry for every `ratio` tokens, on the average of many steps."""
        return self.tokens / np.maximum(self.ratio, 1.0) * self.width

    @property
    def in_elems(self) -> Num | None:
        """The rows of all tokens."""
        return self.tokens * self.row

    @property
    def saved(self) -> Saved:
        """Its inputs."""
        return Saved(inputs=self.tokens * self.row * self.activations.bytes)

    def cut(self, ways: Num) -> PoolWindows:
        """Not cut: every device keeps the one key head whole."""
        return self
