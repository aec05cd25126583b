"""Operations of state-space and linear-attention layers: short convolutions and scans over a recurrent state."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from graphsim.ops.base import Op, OpType, Work
from graphsim.ops.saved import Saved
from graphsim.symbolic.questions import may_be_nonzero
from graphsim.units import Num

STATE_BYTES = 4.0
"""Recurrent states are kept in fp32, as the reference kernels do (mamba_ssm, flash-linear-attention)."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CausalConv(Op):
    """A depthwise causal convolution of `taps` taps over `channels` channels; its state is the last taps.

    mechanism: `kda` where queries, keys and values are convolved by a kernel each; `gdn` and `mamba2` have one for all
    decode, decoding: as in `Scan`
    """

    op_type: ClassVar[OpType] = OpType.CONVOLUTION
    family: ClassVar[str] = "recurrent"

    sequences: Num
    tokens: Num
    channels: Num
    taps: Num
    bias: bool = False
    mechanism: str = "gdn"
    decode: bool = False
    decoding: Num = 0.0

    def work(self) -> Work:
        """Reads and writes every value once, and the state of each sequence."""
        act = self.activations.bytes
        state = self.state_bytes
        return Work(
            vector_flops=2.0 * self.out_elems * self.taps,
            weight_bytes=self.parameters * act * np.minimum(self.tokens, 1.0),
            input_bytes=self.out_elems * act + state,
            write_bytes=self.out_elems * act + state,
        )

    @property
    def lasting_bytes(self) -> Num:
        """Its weights, and the state of generating sequences, read and written."""
        return self.work().weight_bytes + (2.0 * self.state_bytes if self.decode else 0.0)

    @property
    def idle(self) -> bool:
        """Whether no token passes it."""
        return not may_be_nonzero(self.tokens)

    @property
    def parameters(self) -> Num:
        """One filter per channel, and a bias."""
        return self.channels * (self.taps + (1.0 if self.bias else 0.0))

    @property
    def state_bytes(self) -> Num:
        """The last `taps` values of each channel and sequence."""
        return self.sequences * self.channels * self.taps * self.activations.bytes

    @property
    def out_elems(self) -> Num:
        """One value per token and channel."""
        return self.tokens * self.channels

    @property
    def saved(self) -> Saved:
        """Nothing: the gradient of a convolution's input needs only the filters."""
        return Saved()

    @property
    def saved_for_weights(self) -> Saved:
        """Its input."""
        return Saved(inputs=self.out_elems * self.activations.bytes)

    def cut(self, ways: Num) -> CausalConv:
        """Channels are distributed."""
        return replace(self, channels=self.channels / ways)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Scan(Op):
    """A recurrence over tokens: `channels` channels, each with `state` state values.

    inputs: elements read per token, without the state
    learned: weights of the recurrence itself
    matrix: computed in chunks by GEMMs (Mamba-2, gated delta rule), else step by step (Mamba)
    mechanism: `gdn`, `kda` or `mamba2`, whose measured kernels price it exactly or most closely; "" is priced by the
        roofline
    heads, key_heads: that share the channels, and that share their keys
    decode: one token per sequence, the engine's generation kernel
    decoding: sequences of which that is true
    """

    op_type: ClassVar[OpType] = OpType.SCAN
    family: ClassVar[str] = "recurrent"

    sequences: Num
    tokens: Num
    channels: Num
    state: Num
    inputs: Num
    learned: Num = 0.0
    matrix: bool = False
    mechanism: str = ""
    heads: Num = 1.0
    key_heads: Num = 1.0
    decode: bool = False
    decoding: Num = 0.0

    def work(self) -> Work:
        """Update and read-out of the state: about 6 operations per token, channel and state value.

        Mamba, arXiv 2312.00752, section 3.3; in matrix form the same operations run on matrix units (Mamba-2,
        arXiv 2405.21060, section 6). The state is read and written once per sequence and step.
        """
        act = self.activations.bytes
        products = 6.0 * self.tokens * self.channels * self.state
        return Work(
            flops=products if self.matrix else 0.0,
            vector_flops=0.0 if self.matrix else products,
            weight_bytes=self.learned * act * np.minimum(self.tokens, 1.0),
            input_bytes=self.tokens * self.inputs * act + self.state_bytes,
            write_bytes=self.out_elems * act + self.state_bytes,
        )

    @property
    def lasting_bytes(self) -> Num:
        """Its weights, and the state of generating sequences, read and written."""
        return self.work().weight_bytes + (2.0 * self.state_bytes if self.decode else 0.0)

    @property
    def idle(self) -> bool:
        """Whether no token passes it."""
        return not may_be_nonzero(self.tokens)

    @property
    def parameters(self) -> Num:
        """The recurrence's own weights."""
        return self.learned

    @property
    def state_bytes(self) -> Num:
        """The recurrent state of all sequences."""
        return self.sequences * self.channels * self.state * STATE_BYTES

    @property
    def out_elems(self) -> Num:
        """One value per token and channel."""
        return self.tokens * self.channels

    @property
    def saved(self) -> Saved:
        """Its inputs; states are computed again in the backward pass (Mamba, arXiv 2312.00752, section 3.3.2)."""
        return Saved(inputs=self.tokens * self.inputs * self.activations.bytes)

    def cut(self, ways: Num) -> Scan:
        """Channels are distributed, with their heads, inputs and weights."""
        return replace(
            self, channels=self.channels / ways, inputs=self.inputs / ways, learned=self.learned / ways,
            heads=self.heads / ways, key_heads=self.key_heads / ways,
        )  # fmt: skip
