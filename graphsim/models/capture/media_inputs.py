"""Images and sound of a prompt for models that also run on text alone.

There is one image, and one sound, in the whole step where the model's forward lets it: many models loop over them in
Python, and what a tower does with one it does with each. An image is as large as the model's config says; a model that
takes any size gets graphsim's own image (`graphsim.models.media.Media`), cut into whole patches. Sound is as long as a
window of the feature extractor.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch._subclasses.fake_tensor import unset_fake_temporarily

from graphsim.errors import ConfigError
from graphsim.models.capture.blanks import Blanks
from graphsim.models.capture.demanded import image_channels, image_size
from graphsim.models.media import Media

TOWERS = ("vision_config", "audio_config")
"""Parts of a config that describe a tower; None where the model is built without it."""

FRAMES_OF_SOUND = 3000
"""Log-mel frames of 30 s at a hop of 10 ms, what Whisper's feature extractor gives and its kin take."""


def media_inputs(blanks: Blanks, model: Any) -> dict[str, Any]:
    """Arguments of a prompt for the towers that the model's forward feeds.

    Raises:
        ConfigError: the config does not say what they take.
    """
    forward = inspect.signature(model.forward).parameters
    towers = [getattr(model.config, name) for name in TOWERS if hasattr(model.config, name)]
    if towers and not any(towers):
        return {}
    special = MEDIA.get(model.config.model_type)
    if special is not None:
        return special(blanks, model)
    given: dict[str, Any] = {}
    if "image_grid_thw" in forward:
        given |= _patches(blanks, model)
    elif "pixel_values" in forward:
        given |= _pixels(blanks, model)
    if "input_features" in forward:
        given |= _sound(blanks, model, forward)
    return given


def known(values: Any) -> Any:
    """A real tensor: what it says is read by the model's Python, which sizes things by it."""
    with unset_fake_temporarily():
        return torch.tensor(values)


def whole_mask(*sizes: int) -> Any:
    """A real mask that leaves nothing out."""
    return known([True]).expand(sizes)


def _pixels(blanks: Blanks, model: Any, *leading: str | int) -> dict[str, Any]:
    height, width = image_size(model.config)
    return {"pixel_values": blanks.features(*(leading or (1,)), image_channels(model.config), height, width)}


def _pixels_with_sizes(blanks: Blanks, model: Any) -> dict[str, Any]:
    height, width = image_size(model.config)
    pixels = blanks.features(1, image_channels(model.config), height, width)
    return {"pixel_values": pixels, "image_sizes": known([[height, width]])}


def _views(blanks: Blanks, model: Any) -> dict[str, Any]:
    """An image of the tower's own size: seen whole, and in the tiles of the grid that fits it best."""
    from transformers.image_processing_utils import select_best_resolution

    size = image_size(model.config)
    grid = select_best_resolution(size, model.config.image_grid_pinpoints)
    tiles = math.prod(math.ceil(whole / tile) for whole, tile in zip(grid, size, strict=True))
    return {**_pixels(blanks, model, 1, 1 + tiles), "image_sizes": known([list(size)])}


def _image_of_a_sequence(blanks: Blanks, model: Any) -> dict[str, Any]:
    """Pixels [sequences, images of one, channels, height, width], sides of whole patches after the pixel shuffle."""
    config = model.config
    whole = config.vision_config.patch_size * (getattr(config, "scale_factor", None) or 1)
    height, width = (max(1, round(side / whole)) * whole for side in image_size(config))
    return {"pixel_values": blanks.features(1, 1, image_channels(config), height, width)}


def _tiles(blanks: Blanks, model: Any) -> dict[str, Any]:
    return {**_pixels(blanks, model, 1, 1), "pixel_attention_mask": whole_mask(1, 1)}


def _aria(blanks: Blanks, model: Any) -> dict[str, Any]:
    """An image of as many patches as the projector has a number of queries for."""
    vision = model.config.vision_config
    side = math.isqrt(min(map(int, model.config.projector_patch_to_query_dict))) * vision.patch_size
    return {"pixel_values": blanks.features(1, vision.num_channels, side, side)}


def _two_resolutions(blanks: Blanks, model: Any) -> dict[str, Any]:
    high = model.config.high_res_vision_config
    large = blanks.features(1, high.num_channels, high.image_size, high.image_size)
    return {**_pixels(blanks, model), "high_res_pixel_values": large}


def _fuyu(blanks: Blanks, model: Any) -> dict[str, Any]:
    """Rows of patches; Fuyu's processor fits an image into 1080 × 1920 pixels (5.24)."""
    side = model.config.patch_size
    patches = math.ceil(1080 / side) * math.ceil(1920 / side)
    return {"image_patches": blanks.features("batch", patches, model.config.num_channels * side**2)}


def _florence2(blanks: Blanks, model: Any) -> dict[str, Any]:
    """768 × 768 pixels, Florence-2's processor (5.24)."""
    return {"pixel_values": blanks.features("batch", model.config.vision_config.in_channels, 768, 768)}


def _gemma4(blanks: Blanks, model: Any) -> dict[str, Any]:
    """A square image of at most 280 pooled patches, the default of Gemma 4's processor (5.24), padded to as many."""
    vision = model.config.vision_config
    pooled = getattr(vision, "pooling_kernel_size", 3)
    pool, patch = (1, vision.model_patch_size) if hasattr(vision, "model_patch_size") else (pooled, vision.patch_size)
    side, most = math.isqrt(280) * pool, 280 * pool**2
    places = [[x, y] for y in range(side) for x in range(side)] + [[-1, -1]] * (most - side**2)
    return {"pixel_values": blanks.features(1, most, 3 * patch**2), "image_position_ids": known([places])}


def _siglip2(blanks: Blanks, model: Any) -> dict[str, Any]:
    """Patches of an image, with its grid of them."""
    vision = model.config.vision_config
    rows = _grid(model, vision.patch_size, model.config.downsample_factor)
    return {
        "pixel_values": blanks.features(1, math.prod(rows), vision.num_channels * vision.patch_size**2),
        "spatial_shapes": known([list(rows)]),
        "pixel_attention_mask": whole_mask(1, math.prod(rows)),
    }


def _image_each(blanks: Blanks, model: Any) -> dict[str, Any]:
    return _pixels(blanks, model, "batch")


def _patches(blanks: Blanks, model: Any) -> dict[str, Any]:
    """Rows of an image cut into patches, and how many there are in time, height and width."""
    vision = model.config.vision_config
    patch = vision.patch_size if isinstance(vision.patch_size, int) else vision.patch_size[0]
    merge = getattr(vision, "spatial_merge_size", None) or getattr(vision, "merge_kernel_size", (2, 2))[0]
    high, wide = _grid(model, patch, merge)
    channels = getattr(vision, "in_channels", None) or getattr(vision, "num_channels", None) or 3
    width = channels * getattr(vision, "temporal_patch_size", 1) * patch**2
    given = {"pixel_values": blanks.features(high * wide, width), "image_grid_thw": known([[1, high, wide]])}
    if hasattr(getattr(model, "model", model), "get_rope_index"):
        given["position_ids"] = blanks.ids(3, "batch", "length")  # else they are counted from the token ids
    return given


def _square_patches(blanks: Blanks, model: Any) -> dict[str, Any]:
    """Patches that are small pictures themselves."""
    given = _patches(blanks, model)
    patch = model.config.vision_config.patch_size
    return {**given, "pixel_values": blanks.features(given["pixel_values"].shape[0], 3, patch, patch)}


def _frames_of_patches(blanks: Blanks, model: Any) -> dict[str, Any]:
    """Patches of as many frames as the tower's first projection takes at a time."""
    given = _patches(blanks, model)
    first = next(module for path, module in model.named_modules() if path.endswith("patch_embedding"))
    return {**given, "pixel_values": blanks.features(given["pixel_values"].shape[0], first.in_features)}


def _merged_patches(blanks: Blanks, model: Any) -> dict[str, Any]:
    """One picture [height, width, channels] for each token that several patches become."""
    vision = model.config.vision_config
    side = vision.patch_size * vision.spatial_merge_size
    grid = _grid(model, side, 1)
    pixels = blanks.features(math.prod(grid), side, side, vision.num_channels)
    return {"pixel_values": pixels, "image_grid_thw": known([[1, *grid]])}


def _packed_patches(blanks: Blanks, model: Any) -> dict[str, Any]:
    """All patches side by side in one row, and the grid that they come from; the mergers make one of 4 × 4."""
    vision = model.config.vision_config
    grid = _grid(model, vision.patch_size, 4)
    pixels = blanks.features(1, vision.num_channels, vision.patch_size, vision.patch_size * math.prod(grid))
    return {"pixel_values": pixels, "target_sizes": known([list(grid)])}


def _grid(model: Any, patch: int, merge: int) -> tuple[int, int]:
    """Patches of an image in height and width, whole after `merge` of them become one."""
    try:
        sides = image_size(model.config)
    except ConfigError:
        sides = Media().image_size
    high, wide = (max(1, round(side / (patch * merge))) * merge for side in sides)
    return high, wide


def _video_llama_3(blanks: Blanks, model: Any) -> dict[str, Any]:
    return {**_patches(blanks, model), "image_merge_sizes": known([1]), "position_ids": None}


def _granite_speech(blanks: Blanks, model: Any) -> dict[str, Any]:
    """Frames of sound with two of 10 ms stacked in each (`input_dim` of two times 80 bins)."""
    frames = FRAMES_OF_SOUND // 2
    return {"input_features": blanks.features(1, frames, model.config.encoder_config.input_dim)}


def _sound(blanks: Blanks, model: Any, forward: Mapping[str, Any]) -> dict[str, Any]:
    audio = getattr(model.config, "audio_config", None) or getattr(model.config, "encoder_config", model.config)
    audio = getattr(audio, "encoder_config", audio)
    bins = getattr(audio, "num_mel_bins", None)
    if bins is None:
        raise ConfigError(f"{type(audio).__name__} says no num_mel_bins: give example inputs")
    given = {"input_features": blanks.features(1, bins, FRAMES_OF_SOUND)}
    for name in ("input_features_mask", "feature_attention_mask"):
        if name in forward:
            given[name] = whole_mask(1, FRAMES_OF_SOUND)
    return given


MEDIA: Mapping[str, Callable[[Blanks, Any], dict[str, Any]]] = {
    "aria": _aria,
    "deepseek_vl_hybrid": _two_resolutions,
    "fuyu": _fuyu,
    "gemma4": _gemma4,
    "gemma4_unified": _gemma4,
    "granite_speech": _granite_speech,
    "granite_speech_plus": _granite_speech,
    "inkling2": _merged_patches,
    "inkling2_loop": _merged_patches,
    "minicpm_ocr": _packed_patches,
    "minicpmv4_6": _packed_patches,
    "minicpmv4_7": _packed_patches,
    "kimi_k25": _square_patches,
    "paddleocr_vl": _square_patches,
    "udop": _image_each,
    "muse_glimmer": _frames_of_patches,
    "muse_spark": _frames_of_patches,
    "lfm2_vl": _siglip2,
    "video_llama_3": _video_llama_3,
    "idefics2": _image_of_a_sequence,
    "idefics3": _image_of_a_sequence,
    "smolvlm": _image_of_a_sequence,
    "granite_docling": _tiles,
    "git": _image_each,
    "florence2": _florence2,
    "mistral3": _pixels_with_sizes,
    "mistral_large4": _pixels_with_sizes,
    "lighton_ocr": _pixels_with_sizes,
    "llava_next": _views,
    "llava_next_video": _views,
    "llava_onevision": _views,
}
"""Model types whose towers take something else than their arguments' names say."""
