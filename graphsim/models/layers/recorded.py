"""Pieces of towers that were recorded at one size: every image or clip counts as one of that size."""

from __future__ import annotations

import math
from dataclasses import dataclass

from graphsim.models.layers.encoder import Cut, Pieces
from graphsim.models.media import Media


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedImages(Cut):
    """One piece of `rows` rows for each image, whatever its size.

    pixels: of the recorded image if rows and work scale in proportion to an image's pixels; else 0
    """

    rows: int
    pixels: int = 0

    def pieces(self, media: Media) -> Pieces:
        """One per image, or as often as the recorded one fits into it."""
        each = media.height * media.width / self.pixels if self.pixels else 1.0
        return Pieces(count=media.images * each, height=1.0, width=float(self.rows))


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedClips(Cut):
    """Sound in clips of `seconds`, the last one padded, each a piece of `rows` rows."""

    rows: int
    seconds: float

    def pieces(self, media: Media) -> Pieces:
        """As many clips as cover the sound."""
        return Pieces(count=float(math.ceil(media.audio_s / self.seconds)), height=1.0, width=float(self.rows))


@dataclass(frozen=True, slots=True, kw_only=True)
class NoPieces(Cut):
    """For weights that no media of a request use."""

    def pieces(self, media: Media) -> Pieces:
        """No pieces, but one row, so that the weights can be built."""
        return Pieces(count=0.0, height=1.0, width=1.0)
