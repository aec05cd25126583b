"""The encoder of an encoder-decoder, and the meaning of a request for such a model.

A request's input is read by the encoder, once and in both directions; the decoder starts from a token or a few, and
all that it generates attends to the encoder's output.
"""

from __future__ import annotations

from dataclasses import dataclass

from graphsim.models.layers.base import Layer
from graphsim.models.media import Media
from graphsim.models.phase import Phase, decode, prefill
from graphsim.units import Num


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceEncoder:
    """An encoder whose output a decoder attends to.

    kind: the family's name, by which engines know it
    stem: from tokens, or features of sound, to values
    layers: one description per layer
    tail: after the last
    output_size: width of the tail's result, the hidden size if 0
    rows: fixed number of positions, independent of the request (Whisper pads sound to 30 s); 0: one for each token
    start_tokens: with which the decoder starts
    max_positions: the longest input, 0 if unknown
    """

    kind: str
    hidden_size: int
    stem: Layer
    layers: tuple[Layer, ...]
    tail: Layer | None = None
    layer_prefix: str = "model.encoder.layers.{}."
    output_size: int = 0
    rows: int = 0
    start_tokens: int = 1
    max_positions: int = 0

    def rows_of(self, input_tokens: Num) -> Num:
        """Rows that the decoder's layers read of a request."""
        return float(self.rows) if self.rows else input_tokens

    def own_tokens(self, input_tokens: Num, tokens: Num) -> Num:
        """Tokens that the decoder's own cache holds, out of a request's input and generated tokens."""
        return tokens - input_tokens + self.start_tokens


def prompt_phase(
    source: SourceEncoder | None, batch: Num, input_tokens: Num, media: Media | None = None, seen: Num = 0.0
) -> Phase:
    """The prompt step of a batch: the whole input; of an encoder-decoder, its encoding and the decoder's start.

    seen: rows of towers that cross-attention reads of each request
    """
    if source is None:
        return prefill(batch, input_tokens, media=media, source_tokens=seen)
    return prefill(batch, float(source.start_tokens), source_tokens=source.rows_of(input_tokens))


def token_phase(
    source: SourceEncoder | None, batch: Num, input_tokens: Num, context_tokens: Num, seen: Num = 0.0
) -> Phase:
    """The step of one more token after `context_tokens`, input and generated together.

    seen: as of the prompt
    """
    if source is None:
        return decode(batch, context_tokens, source_tokens=seen)
    own = source.own_tokens(input_tokens, context_tokens)
    return decode(batch, own, source_tokens=source.rows_of(input_tokens))
