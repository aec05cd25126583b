"""Sound as an encoder takes it in: a mel spectrogram behind convolutions (arXiv 2212.04356, section 2.2)."""

from __future__ import annotations

from dataclasses import dataclass

from graphsim.models.layers.base import Layer, Scope
from graphsim.ops import Activation, Add, Conv1d, Embedding, Input
from graphsim.units import Num


@dataclass(frozen=True, slots=True, kw_only=True)
class SoundStem(Layer):
    """Frames of `bands` mel bands -> two convolutions of three taps, the second one with stride 2 -> positions.

    positions: rows of the table that is added; 0: none
    module: the encoder's
    """

    bands: int
    positions: int
    module: str = "model.encoder"

    def build(self, scope: Scope, x: str = "") -> str:
        """Two frames make a row."""
        rows = scope.tokens
        out = scope.add("mel", Input(elems=2.0 * rows * self.bands), [])
        out = self._convolution(scope, "conv1", out, 2.0 * rows, self.bands, 1.0)
        out = self._convolution(scope, "conv2", out, rows, scope.hidden, 2.0)
        if not self.positions:
            return out
        table = Embedding(
            tokens=rows, entries=self.positions, width=scope.hidden, whole=True, module=f"{self.module}.embed_positions"
        )
        return scope.add("sound_add", Add(elems=rows * scope.hidden), [out, scope.add("sound_positions", table, [])])

    def _convolution(self, scope: Scope, name: str, x: str, rows: Num, channels: Num, stride: float) -> str:
        conv = Conv1d(
            m=rows,
            n=scope.hidden,
            k=3.0 * channels,
            taps=3.0,
            stride=stride,
            bias=True,
            weights=scope.activations,
            module=f"{self.module}.{name}",
            linear=False,
        )
        out = scope.add(name, conv, [x])
        return scope.add(f"{name}_act", Activation(elems=rows * scope.hidden, steps=4.0), [out])
