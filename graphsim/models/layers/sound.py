"""The audio input of an encoder: a mel spectrogram through convolutions (arXiv 2212.04356, section 2.2)."""

from __future__ import annotations

from dataclasses import dataclass

from graphsim.models.layers.base import Layer, Projection, Scope
from graphsim.ops import Activation, Add, Conv2d, Embedding, Patches
from graphsim.units import Num


@dataclass(frozen=True, slots=True, kw_only=True)
class SoundStem(Layer):
    """Frames of `bands` mel bands -> two convolutions of three taps, the second one with stride 2 -> positions.

    positions: rows of the table that is added; 0: none
    module: put before the modules' names
    """

    bands: int
    positions: int
    module: str = ""

    def build(self, scope: Scope, x: str = "") -> str:
        """Two frames make a row."""
        rows = scope.tokens
        out = scope.add("mel", Patches(rows=2.0 * rows, width=self.bands), [])
        out = self._convolution(scope, "conv1", out, 2.0 * rows, self.bands, 1.0)
        out = self._convolution(scope, "conv2", out, rows, scope.hidden, 2.0)
        if not self.positions:
            return out
        table = Embedding(
            tokens=rows,
            entries=self.positions,
            width=scope.hidden,
            whole=True,
            module=f"{scope.prefix}{self.module}embed_positions",
        )
        return scope.add("sound_add", Add(elems=rows * scope.hidden), [out, scope.add("sound_positions", table, [])])

    def _convolution(self, scope: Scope, name: str, x: str, rows: Num, channels: Num, stride: float) -> str:
        conv = Conv2d(
            m=rows,
            n=scope.hidden,
            k=3.0 * channels,
            taps=3.0,
            stride=stride,
            bias=True,
            weights=scope.activations,
            module=f"{scope.prefix}{self.module}{name}",
            linear=False,
        )
        out = scope.add(name, conv, [x])
        return scope.add(f"{name}_act", Activation(elems=rows * scope.hidden, steps=4.0), [out])


@dataclass(frozen=True, slots=True, kw_only=True)
class SpectrogramStem(Layer):
    """Chunks of `frames` frames of `bands` bands as pictures -> three convolutions of 3 x 3 taps, each of stride 2.

    channels: of the convolutions; the remaining bands of a frame in all channels become one row by a linear layer
    """

    bands: int
    frames: int
    channels: int
    linear: str = "conv_out"

    @property
    def rows(self) -> int:
        """Rows per chunk."""
        return _halved(self.frames)[-1]

    def build(self, scope: Scope, x: str = "") -> str:
        """A chunk is padded to all its frames."""
        chunks = scope.tokens / self.rows
        out = scope.add("mel", Patches(rows=chunks * self.frames, width=self.bands), [])
        high, wide, channels = self.bands, self.frames, 1
        for i, (bands, frames) in enumerate(zip(_halved(self.bands), _halved(self.frames), strict=True), start=1):
            conv = Conv2d(
                m=chunks * bands * frames,
                n=self.channels,
                k=9.0 * channels,
                taps=9.0,
                stride=high * wide / (bands * frames),
                bias=True,
                weights=scope.activations,
                module=f"{scope.prefix}conv2d{i}",
                linear=False,
            )
            out = scope.add(f"conv2d{i}", conv, [out])
            out = scope.add(f"conv2d{i}_act", Activation(elems=conv.out_elems, steps=4.0), [out])
            high, wide, channels = bands, frames, self.channels
        return scope.linear(Projection(name=self.linear, n=scope.hidden, k=high * channels, quantised=False), out)


def _halved(length: int) -> list[int]:
    """Lengths after each of three convolutions of stride 2, padded by one."""
    found = [(length + 1) // 2]
    for _ in range(2):
        found.append((found[-1] + 1) // 2)
    return found
