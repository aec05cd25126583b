"""How image processors cut images: to one fixed size, or at native resolution."""

from __future__ import annotations

import math
from dataclasses import dataclass

from graphsim.models.layers.encoder import Cut, Pieces
from graphsim.models.media import Media


@dataclass(frozen=True, slots=True, kw_only=True)
class Resized(Cut):
    """Every image is resized to one size and cut into patches."""

    image: tuple[int, int]
    patch: int

    def pieces(self, media: Media) -> Pieces:
        """One piece for each image."""
        return Pieces(
            count=float(media.images),
            height=float(self.image[0] // self.patch),
            width=float(self.image[1] // self.patch),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Native(Cut):
    """Images keep their resolution, with sides rounded to multiples of patch x merge and the area within bounds.

    Qwen2-VL (arXiv 2409.12191, section 2.1; transformers 5.24, `image_processing_qwen2_vl.py`, smart_resize).
    merge: number of patches along a side that are merged into one row
    least, most: bounds on the number of pixels of an image
    """

    patch: int
    merge: int = 1
    least: int = 56 * 56
    most: int = 28 * 28 * 1280

    def pieces(self, media: Media) -> Pieces:
        """One piece for each image."""
        factor, (height, width) = self.patch * self.merge, media.image_size
        high = max(factor, round(height / factor) * factor)
        wide = max(factor, round(width / factor) * factor)
        if high * wide > self.most:
            shrink = math.sqrt(height * width / self.most)
            high = max(factor, math.floor(height / shrink / factor) * factor)
            wide = max(factor, math.floor(width / shrink / factor) * factor)
        elif high * wide < self.least:
            grow = math.sqrt(self.least / (height * width))
            high, wide = math.ceil(height * grow / factor) * factor, math.ceil(width * grow / factor) * factor
        return Pieces(count=float(media.images), height=float(high // self.patch), width=float(wide // self.patch))


@dataclass(frozen=True, slots=True, kw_only=True)
class Longest(Cut):
    """Images keep their aspect ratio and shrink until the longer side fits; sides are rounded up to whole patches.

    Pixtral (transformers 5.24, `image_processing_pixtral.py`, get_resize_output_image_size).
    merge: as in `Native`
    """

    patch: int
    longest: int
    merge: int = 1

    def pieces(self, media: Media) -> Pieces:
        """One piece for each image."""
        factor, (height, width) = self.patch * self.merge, media.image_size
        ratio = max(height / self.longest, width / self.longest, 1.0)
        high, wide = (math.ceil(math.floor(side / ratio) / factor) * self.merge for side in (height, width))
        return Pieces(count=float(media.images), height=float(max(high, 1)), width=float(max(wide, 1)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Nothing(Cut):
    """No input, for towers of media that simulated requests do not contain, such as videos."""

    def pieces(self, media: Media) -> Pieces:
        """No pieces, with one row, so that the tower's weights can be built."""
        return Pieces(count=0.0, height=1.0, width=1.0)
