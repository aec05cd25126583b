"""The media of a request: images and sound."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from graphsim.errors import ConfigError
from graphsim.units import bounds_text, short

MOST_IMAGES, MOST_PIXELS, MOST_SECONDS = 10_000, 100_000, 10**6
"""Largest plausible number of images, side of an image in pixels, and seconds of sound of a request."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Media:
    """Images and sound of each request, before the model's processor resizes, tiles and cuts them.

    images: number of images
    image_size: height and width of each in pixels
    audio_s: duration of the sound in seconds
    Raises ConfigError for a value that is not a valid size.
    """

    images: int = 0
    image_size: tuple[int, int] = (1024, 1024)
    audio_s: float = 0.0

    def __post_init__(self) -> None:
        """Raise ConfigError for invalid values."""
        if not _whole(self.images, 0, MOST_IMAGES):
            raise ConfigError(
                f"images = {short(self.images)} is not allowed; expected a whole number {bounds_text(0, MOST_IMAGES)}"
            )
        size = self.image_size
        if not (isinstance(size, tuple | list) and len(size) == 2 and all(_whole(n, 1, MOST_PIXELS) for n in size)):
            expected = f"height and width, whole numbers of pixels {bounds_text(1, MOST_PIXELS)}"
            raise ConfigError(f"image_size = {short(size)} is not allowed; expected {expected}")
        object.__setattr__(self, "image_size", (int(size[0]), int(size[1])))
        sound: Any = self.audio_s
        real = isinstance(sound, int | float) and not isinstance(sound, bool)
        if not real or not math.isfinite(sound) or not 0 <= sound <= MOST_SECONDS:
            raise ConfigError(
                f"audio_s = {short(sound)} is not allowed; expected seconds {bounds_text(0, MOST_SECONDS)}"
            )

    @property
    def height(self) -> int:
        """Height of an image in pixels."""
        return self.image_size[0]

    @property
    def width(self) -> int:
        """Width of an image in pixels."""
        return self.image_size[1]

    @property
    def is_any(self) -> bool:
        """Whether there is an image or a sound."""
        return self.images > 0 or self.audio_s > 0


def _whole(value: Any, least: int, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


NO_MEDIA = Media()
"""No image and no sound, in a step that still includes the towers' weights."""
