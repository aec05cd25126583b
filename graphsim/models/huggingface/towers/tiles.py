"""Images cut into tiles of one size, each encoded separately, often with a view of the whole."""

from __future__ import annotations

import math
from dataclasses import dataclass

from graphsim.models.layers.encoder import Cut, Pieces
from graphsim.models.media import Media


@dataclass(frozen=True, slots=True, kw_only=True)
class Tiles(Cut):
    """The grid of `least` to `most` tiles nearest to the image's shape, and a view of the whole if there are several.

    InternVL (arXiv 2404.16821, section 3.2; transformers 5.24, `image_processing_got_ocr2.py`,
    get_optimal_tiled_canvas).
    tile: height and width of a tile, pixels
    whole: whether there is a view of the whole
    across: maximum number of tiles along a side; unbounded if 0
    """

    tile: tuple[int, int]
    patch: int
    least: int = 1
    most: int = 12
    whole: bool = True
    across: int = 0

    def pieces(self, media: Media) -> Pieces:
        """The tiles of all images."""
        columns, rows = self._grid(media.height, media.width)
        tiles = columns * rows
        return _of(self.tile, self.patch, media.images * (tiles + (self.whole and tiles > 1)))

    def _grid(self, height: int, width: int) -> tuple[int, int]:
        sides = range(1, min(self.most, self.across or self.most) + 1)
        grids = sorted(
            ((c, r) for c in sides for r in sides if self.least <= c * r <= self.most),
            key=lambda grid: grid[0] * grid[1],
        )
        best, found = math.inf, (1, 1)
        for columns, rows in grids:
            far = abs(width / height - columns / rows)
            larger = height * width > 0.5 * self.tile[0] * self.tile[1] * columns * rows
            if far < best or (far == best and larger):
                best, found = far, (columns, rows)
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Canvas(Cut):
    """Tiles of the canvas that keeps most of the image and wastes least, and a view of the whole.

    LLaVA-NeXT (transformers 5.24, `image_processing_utils.py`, select_best_resolution).
    canvases: allowed heights and widths, pixels
    """

    tile: tuple[int, int]
    patch: int
    canvases: tuple[tuple[int, int], ...]

    def pieces(self, media: Media) -> Pieces:
        """The tiles of all images."""
        high, wide = max(self.canvases, key=lambda canvas: self._fit(canvas, media))
        tiles = max(high // self.tile[0], 1) * max(wide // self.tile[1], 1)
        return _of(self.tile, self.patch, media.images * (tiles + 1))

    def _fit(self, canvas: tuple[int, int], media: Media) -> tuple[int, int]:
        """Number of image pixels that are kept, and minus the number of canvas pixels that are wasted."""
        (high, wide), height, width = canvas, media.height, media.width
        scale = min(wide / width, high / height)
        kept = min(int(width * scale) * int(height * scale), width * height)
        return kept, kept - high * wide


@dataclass(frozen=True, slots=True, kw_only=True)
class Split(Cut):
    """The image is resized to a longer side of `longest` and split into tiles of one size; and a view of the whole.

    Idefics3 (transformers 5.24, `image_processing_idefics3.py`, resize_for_vision_encoder, split_images).
    """

    side: int
    patch: int
    longest: int

    def pieces(self, media: Media) -> Pieces:
        """The tiles of all images."""
        scale = self.longest / max(media.height, media.width)
        high, wide = (math.ceil(max(side * scale, 1.0) / self.side) for side in media.image_size)
        tiles = high * wide
        return _of((self.side, self.side), self.patch, media.images * (tiles + (tiles > 1)))


def _of(tile: tuple[int, int], patch: int, count: float) -> Pieces:
    return Pieces(count=float(count), height=float(tile[0] // patch), width=float(tile[1] // patch))
