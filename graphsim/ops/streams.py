"""A residual of several streams: hyper-connections (arXiv 2409.19606, 2512.24880) and AltUp (arXiv 2301.13310).

Formulas as transformers 5.24 computes them, `DeepseekV4HyperConnection` and `Gemma3nTextAltUp`; engines fuse each side
of a hyper-connection into one kernel
(vLLM and SGLang: `mhc_pre`, `mhc_post`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from graphsim.ops.base import Op, OpType, Sharding, Work
from graphsim.ops.saved import Saved
from graphsim.units import Num

WEIGHT_BYTES = 4.0
"""The mixing's own weights are kept in fp32."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MixStreams(Op):
    """Base of both sides: `tokens` rows of `streams` streams of `width` elements."""

    op_type: ClassVar[OpType] = OpType.ELEMENTWISE
    sharding: ClassVar[Sharding] = Sharding.WHOLE

    tokens: Num
    streams: Num
    width: Num

    @property
    def wide(self) -> Num:
        """Elements of all streams of all tokens."""
        return self.tokens * self.streams * self.width

    @property
    def out_elems(self) -> Num:
        """All streams of all tokens."""
        return self.wide

    @property
    def out_rows(self) -> Num | None:
        """One per token."""
        return self.tokens

    def cut(self, ways: Num) -> MixStreams:
        """Not cut: a token's mixing weights come from all its streams."""
        return self


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CollapseStreams(MixStreams):
    """A token's mixing weights by a GEMM with all its streams, and the streams summed into one by them.

    Parts: `collapsed`, and `mixing` for what expands the result again. projected: how many weights the GEMM
    gives, (2 + n) n before a part, n at the model's end; iterations: of Sinkhorn's normalisation of the n x n of
    them; scales: learned factors in addition to a bias for each weight; parameter: what the weights' paths begin with,
    before `fn`, `base` and `scale`
    """

    family: ClassVar[str] = "hyper_connections"

    projected: Num
    iterations: Num = 0.0
    scales: Num = 1.0
    parameter: str = ""

    def work(self) -> Work:
        """2 T p n h of the GEMM; a norm, a sum of the streams, and two sums and quotients per iteration."""
        act = self.activations.bytes
        square = self.streams * self.streams
        return Work(
            flops=2.0 * self.projected * self.wide,
            vector_flops=5.0 * self.wide + self.tokens * (4.0 * self.projected + 4.0 * self.iterations * square),
            weight_bytes=self.weight_storage_bytes * np.minimum(self.tokens, 1.0),
            input_bytes=self.wide * act,
            write_bytes=self.out_elems * act,
        )

    @property
    def parameters(self) -> Num:
        """The GEMM's weights, a bias for each result, the scales."""
        return self.projected * (self.streams * self.width + 1.0) + self.scales

    @property
    def weight_storage_bytes(self) -> Num:
        """Bytes in fp32."""
        return self.parameters * WEIGHT_BYTES

    @property
    def out_parts(self) -> dict[str, Num]:
        """`collapsed` and `mixing`."""
        behind = self.projected - self.streams
        return {"collapsed": self.tokens * self.width, "mixing": self.tokens * behind}

    @property
    def out_elems(self) -> Num:
        """The collapsed stream, and the weights that are used after the sublayer."""
        return self.tokens * (self.width + self.projected - self.streams)

    @property
    def in_elems(self) -> Num | None:
        """All streams."""
        return self.wide

    @property
    def saved(self) -> Saved:
        """All streams, and the mixing weights in fp32."""
        return Saved(inputs=self.wide * self.activations.bytes, own=4.0 * self.tokens * self.projected)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ExpandStreams(MixStreams):
    """A part's result spread over the streams, and the streams mixed among each other: the next residual.

    mixed: whether they are, by n x n weights of the token; else the result is added to them as they are
    """

    family: ClassVar[str] = "hyper_connections"

    mixed: bool = True

    def work(self) -> Work:
        """2 T n n h of the mixing; a product and a sum for each element of the result."""
        act = self.activations.bytes
        return Work(
            flops=2.0 * self.streams * self.wide * float(self.mixed),
            vector_flops=2.0 * self.wide,
            input_bytes=self.in_elems * act,
            write_bytes=self.wide * act,
        )

    @property
    def out_elems(self) -> Num:
        """All streams."""
        return self.wide

    @property
    def in_elems(self) -> Num:
        """The part's result, all streams, and the mixing weights."""
        square = self.streams * self.streams * float(self.mixed)
        return self.tokens * (self.width + self.streams + square) + self.wide

    @property
    def saved(self) -> Saved:
        """Its inputs."""
        return Saved(inputs=self.in_elems * self.activations.bytes)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SplitStreams(MixStreams):
    """The streams one by one, parts `0`, `1`, ...; nothing moves."""

    launched: ClassVar[bool] = False
    op_type: ClassVar[OpType] = OpType.INPUT

    names: tuple[str, ...] = ()

    @property
    def out_elems(self) -> Num:
        """All streams."""
        return self.wide

    @property
    def out_parts(self) -> dict[str, Num]:
        """Each stream."""
        return dict.fromkeys(self.names, self.tokens * self.width)

    @property
    def in_elems(self) -> Num | None:
        """All streams."""
        return self.wide

    @property
    def is_view(self) -> Any:
        """Always: the streams lie side by side."""
        return True

    @property
    def saved(self) -> Saved:
        """Nothing: the consumer of a stream saves it."""
        return Saved()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PredictStreams(MixStreams):
    """Every stream as a sum of all of them by n x n weights of the token, added to itself (AltUp, arXiv 2301.13310).

    Part `active`: the stream that the layer works on.
    """

    def work(self) -> Work:
        """2 T n n h, and one addition for each element."""
        act = self.activations.bytes
        return Work(
            flops=2.0 * self.streams * self.wide,
            vector_flops=self.wide,
            input_bytes=self.in_elems * act,
            write_bytes=self.wide * act,
        )

    @property
    def out_elems(self) -> Num:
        """All streams."""
        return self.wide

    @property
    def out_parts(self) -> dict[str, Num]:
        """`active`."""
        return {"active": self.tokens * self.width}

    @property
    def in_elems(self) -> Num:
        """All streams, and the weights."""
        return self.wide + self.tokens * self.streams * self.streams

    @property
    def saved(self) -> Saved:
        """Its inputs."""
        return Saved(inputs=self.in_elems * self.activations.bytes)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CorrectStreams(MixStreams):
    """All streams moved by what the layer changed of the active one, each by a weight of its own (AltUp).

    learned: a factor for each element of the active one, which part `active` is multiplied by
    """

    learned: Num = 0.0

    def work(self) -> Work:
        """A difference, a product and a sum for each element."""
        act = self.activations.bytes
        return Work(
            vector_flops=3.0 * self.wide,
            weight_bytes=self.learned * act * np.minimum(self.tokens, 1.0),
            input_bytes=self.in_elems * act,
            write_bytes=self.wide * act,
        )

    @property
    def parameters(self) -> Num:
        """The factors."""
        return self.learned

    @property
    def out_elems(self) -> Num:
        """All streams."""
        return self.wide

    @property
    def out_parts(self) -> dict[str, Num]:
        """`active`."""
        return {"active": self.tokens * self.width}

    @property
    def in_elems(self) -> Num:
        """All streams, the layer's result, the weights."""
        return self.wide + self.tokens * (self.width + self.streams)

    @property
    def saved(self) -> Saved:
        """Its inputs."""
        return Saved(inputs=self.in_elems * self.activations.bytes)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AddToStreams(MixStreams):
    """One value added to all streams but the first, in place."""

    def work(self) -> Work:
        """Reads and writes those that change, reads the value."""
        act = self.activations.bytes
        changed = np.maximum(self.streams - 1.0, 0.0) * self.tokens * self.width
        return Work(
            vector_flops=changed, input_bytes=(changed + self.tokens * self.width) * act, write_bytes=changed * act
        )

    @property
    def out_elems(self) -> Num:
        """All streams."""
        return self.wide

    @property
    def in_elems(self) -> Num:
        """All streams and the value."""
        return self.wide + self.tokens * self.width

    @property
    def saved(self) -> Saved:
        """Nothing: a sum's gradient is its inputs'."""
        return Saved()
