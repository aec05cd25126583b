"""Arguments of image and audio towers, each at one size, for a model's own `get_..._features`.

The shapes follow from the argument names and the config; if several shapes are possible, they are tried in turn.
"""

from __future__ import annotations

import inspect
import math
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch

from graphsim.units import amount_text

IMAGE_PARTS = ("vision_config", "vision_encoder_config", "vit_config")
SOUND_PARTS = ("audio_config", "encoder_config", "speech_config")
"""Possible names of a tower's own config."""

IMAGE_SIDE = 1024
"""Side of an image in pixels for towers that take any resolution, before rounding to whole rows of the tower."""

CLIP_FRAMES = 3000
"""Frames of an audio clip by default: 30 s of Whisper's features, one every 10 ms."""

COMMON_SIDES = (224, 336, 384, 448, 490, 896, 980, 1024)
"""Sides of an image in pixels to which processors of transformers 5.24 resize by default."""

FRAMES_PER_SECOND = 100
SAMPLES_PER_SECOND = 16_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Tower:
    """How a tower is called.

    medium: `image` or `sound`
    call: the model's method
    candidates: possible arguments, tried in turn
    size: height and width of the image in pixels
    native: whether the number of rows is proportional to the image's area
    seconds: duration of the audio clip
    """

    medium: str
    call: Callable[..., Any]
    candidates: tuple[Mapping[str, torch.Tensor], ...]
    size: tuple[int, int] = (0, 0)
    native: bool = False
    seconds: float = 0.0

    @property
    def note(self) -> str:
        """How the run at one size applies to other sizes, as a sentence."""
        if self.medium == "sound":
            return f"sound passes its tower in clips of {amount_text(self.seconds)} s, the last one filled up"
        height, width = self.size
        if self.native:
            return f"an image passes its tower as often as {height} x {width} pixels fit into it, attention included"
        return f"every image passes its tower as one of {height} x {width} pixels"


def towers(model: torch.nn.Module) -> Iterator[Tower]:
    """The known towers of a model and how to call them; none if the config says that there is no such tower."""
    ways = (("get_image_features", _images, IMAGE_PARTS), ("get_audio_features", _sound, SOUND_PARTS))
    for name, make, parts in ways:
        config = getattr(model, "config", None)
        if any(getattr(config, part, 0) is None for part in parts):
            continue
        calls = [getattr(owner, name) for owner in (model, getattr(model, "model", None)) if hasattr(owner, name)]
        if calls:
            yield from make(model, max(calls, key=_says))


def _says(call: Callable[..., Any]) -> bool:
    """Whether a method names its arguments instead of passing on any keyword arguments."""
    return any(name.startswith(("pixel_values", "input_")) for name in _names(call))


def _names(call: Callable[..., Any]) -> list[str]:
    return list(inspect.signature(call).parameters)


def _images(model: Any, call: Callable[..., Any]) -> Iterator[Tower]:
    names, facts = _names(call), _Facts(model.config, IMAGE_PARTS)
    grid = next((name for name in names if name in ("image_grid_thw", "image_grid_hw")), None)
    if grid is not None:
        step = facts.patch * facts.merge
        side = max(IMAGE_SIDE // step, 1) * facts.merge
        shapes: list[tuple[int, ...]] = [(side * side, width) for width in facts.patch_widths()]
        shapes += [(side * side, facts.channels, facts.patch, facts.patch)]
        sizes = torch.tensor([[1, side, side] if grid.endswith("thw") else [side, side]])
        given = tuple({"pixel_values": torch.ones(shape), grid: sizes} for shape in shapes)
        yield Tower(medium="image", call=call, candidates=given, size=(side * facts.patch,) * 2, native=True)
        return
    if "spatial_shapes" in names:
        yield _patches(call, facts)
        return
    tiles = "image_sizes" in names
    pixels = [shape for side in facts.sides() for shape in _shapes(names, facts.channels, side)]
    given = tuple({"pixel_values": torch.ones(shape), **_beside(names, shape)} for shape in pixels)
    side = facts.side
    count = _tiles(model, side) if tiles else 0
    if count:
        sizes = torch.tensor([[IMAGE_SIDE, IMAGE_SIDE]])
        tiled = {"pixel_values": torch.ones(1, count, facts.channels, side, side), "image_sizes": sizes}
        given, side = (tiled,), IMAGE_SIDE
    yield Tower(medium="image", call=call, candidates=given, size=(side, side))


def _shapes(names: list[str], channels: int, side: int) -> list[tuple[int, ...]]:
    """Possible shapes of the pixels of one image: alone, or as the only image of a request."""
    plain, nested = (1, channels, side, side), (1, 1, channels, side, side)
    return [nested, plain] if "pixel_attention_mask" in names else [plain, nested]


def _patches(call: Callable[..., Any], facts: _Facts) -> Tower:
    """A tower that takes flattened patches, padded to the maximum number per tile."""
    side = facts.number(16, "max_num_patches_per_side")
    shape = (1, side * side, facts.channels * facts.patch**2)
    given = {
        "pixel_values": torch.ones(shape),
        "spatial_shapes": torch.tensor([[side, side]]),
        "pixel_attention_mask": torch.ones(1, side * side, dtype=torch.long),
    }
    return Tower(medium="image", call=call, candidates=(given,), size=(side * facts.patch,) * 2)


def _beside(names: list[str], pixels: tuple[int, ...]) -> dict[str, torch.Tensor]:
    """Arguments in addition to the pixels of one image.

    names: the method's argument names
    pixels: shape of the pixels
    """
    *leading, _, height, width = pixels
    known = {
        "image_sizes": torch.tensor([[height, width]]),
        "pixel_attention_mask": torch.ones(*leading, height, width, dtype=torch.bool),
        "pixel_mask": torch.ones(*leading, height, width, dtype=torch.bool),
    }
    return {name: tensor for name, tensor in known.items() if name in names}


def _tiles(model: Any, side: int) -> int:
    """Number of tiles into which a model splits an image, by the model's own rule; 0 if it has none."""
    pins = getattr(model.config, "image_grid_pinpoints", None)
    rule = getattr(sys.modules[type(model).__module__], "image_size_to_num_patches", None)
    return 0 if pins is None or rule is None else int(rule((IMAGE_SIDE, IMAGE_SIDE), pins, side))


def _sound(model: Any, call: Callable[..., Any]) -> Iterator[Tower]:
    names, facts = _names(call), _Facts(model.config, SOUND_PARTS)
    if "input_values" in names:
        samples = 30 * SAMPLES_PER_SECOND
        given = {"input_values": torch.ones(1, samples), "padding_mask": torch.ones(1, samples, dtype=torch.bool)}
        known = {key: value for key, value in given.items() if key in names}
        yield Tower(medium="sound", call=call, candidates=(known,), seconds=samples / SAMPLES_PER_SECOND)
        return
    frames, bands = facts.frames, facts.bands
    masks = {
        name: torch.ones(1, frames, dtype=kind)
        for name, kind in product(("input_features_mask", "feature_attention_mask"), (torch.long,))
        if name in names
    }
    shapes = [(1, bands, frames), (1, frames, bands)]
    candidates = tuple({"input_features": torch.ones(shape), **masks} for shape in shapes)
    yield Tower(medium="sound", call=call, candidates=candidates, seconds=frames / FRAMES_PER_SECOND)


class _Facts:
    """Properties of a tower in a config, by any of the names in use."""

    def __init__(self, config: Any, parts: tuple[str, ...]) -> None:
        inner = getattr(config, "thinker_config", config)
        self.parts = [part for name in parts if (part := getattr(inner, name, None)) is not None] + [inner]

    def find(self, *names: str) -> Any:
        """The first of these attributes in the tower's config, else in the model's; None if there is none."""
        for part, name in product(self.parts, names):
            value = getattr(part, name, None)
            if value is not None:
                return value
        return None

    def number(self, default: int, *names: str) -> int:
        """The first of these attributes as an integer, or `default`."""
        value = self.find(*names)
        value = value[-1] if isinstance(value, list | tuple) and value else value
        return int(value) if isinstance(value, int | float) else default

    @property
    def channels(self) -> int:
        """Number of channels of an image."""
        return self.number(3, "in_channels", "num_channels", "in_chans")

    @property
    def patch(self) -> int:
        """Side of a patch in pixels."""
        return self.number(14, "patch_size")

    @property
    def merge(self) -> int:
        """Number of patches along each side that are merged into one row."""
        return self.number(2, "spatial_merge_size", "merge_size", "merge_kernel_size", "downsample_factor")

    @property
    def side(self) -> int:
        """Side of an image in pixels, for towers with a fixed size."""
        return self.number(IMAGE_SIDE // self.patch * self.patch, "image_size")

    def sides(self) -> list[int]:
        """Possible sides of an image in pixels: the config's, and common sizes if the config may state a wrong one."""
        counts = self.find("projector_patch_to_query_dict") or {}
        known = [math.isqrt(int(patches)) * self.patch for patches in counts]
        return list(dict.fromkeys((self.side, *known, *COMMON_SIDES)))

    @property
    def frames(self) -> int:
        """Number of frames of an audio clip."""
        positions = self.number(0, "max_source_positions")
        return 2 * positions if positions else CLIP_FRAMES

    @property
    def bands(self) -> int:
        """Number of frequency bands of an audio frame."""
        return self.number(128, "num_mel_bins", "input_dim", "feature_size", "n_mels")

    def patch_widths(self) -> list[int]:
        """Possible numbers of values of a flattened patch, with and without the frames that it spans."""
        flat = self.channels * self.patch**2
        return list(dict.fromkeys((flat * self.number(1, "temporal_patch_size"), flat, 2 * flat)))
