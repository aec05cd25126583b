"""Arguments that some models' forward requires in addition to token ids, and those that generation passes to decode.

Keys are transformers' model types, as of version 5.24.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping
from typing import Any

from graphsim.errors import ConfigError
from graphsim.models.capture.blanks import Blanks

MAX_PATCHES = 2048
"""Default number of patches per image in Pix2Struct's processor (`max_patches`)."""

CAMERAS = 1
"""Number of camera views of a robot policy: its forward takes any number from one up."""

FRAMES = 4
"""Frames per clip: InstructBLIP's video checkpoints use four."""


def image_size(config: Any) -> tuple[int, int]:
    """Height and width of an image in pixels, from the vision part of the model's config or the config itself.

    Raises:
        ConfigError: the config states no image size.
    """
    parts = [getattr(config, name, None) for name in ("vision_config", "encoder", "vlm_config")]
    for part in (*parts, config):
        size = getattr(getattr(part, "vision_config", part), "image_size", None)
        if isinstance(size, int):
            return size, size
        if isinstance(size, list | tuple) and len(size) == 2:
            return size[0], size[1]
    raise ConfigError(f"{type(config).__name__} has no image_size; give example inputs")


def image_channels(config: Any) -> int:
    """Number of channels of an image; three if the config states none."""
    part = getattr(config, "vision_config", None) or getattr(config, "encoder", None) or config
    return int(getattr(part, "num_channels", 3) or 3)


def images(blanks: Blanks, config: Any, *leading: str | int) -> Any:
    """Pixels of shape [*leading, channels, height, width]."""
    return blanks.features(*(leading or ("batch",)), image_channels(config), *image_size(config))


def _blip(blanks: Blanks, model: Any) -> dict[str, Any]:
    return {"pixel_values": images(blanks, model.config), **_own_cache(blanks, model)}


def _own_cache(blanks: Blanks, model: Any) -> dict[str, Any]:
    """An empty cache, as `generate` passes it to models whose result contains no cache."""
    from transformers import DynamicCache

    return {"cache": DynamicCache(config=model.config.get_text_config(decoder=True))}


def _blip_2(blanks: Blanks, model: Any) -> dict[str, Any]:
    given = {"pixel_values": images(blanks, model.config)}
    if not model.config.use_decoder_only_language_model:
        given["decoder_input_ids"] = blanks.ids("batch", "length")
        given["input_ids"] = blanks.ids("batch", "source")
    return given


def _instructblip(blanks: Blanks, model: Any) -> dict[str, Any]:
    return _blip_2(blanks, model) | {"qformer_input_ids": blanks.ids("batch", "length")}


def _instructblipvideo(blanks: Blanks, model: Any) -> dict[str, Any]:
    return _instructblip(blanks, model) | {"pixel_values": images(blanks, model.config, "batch", FRAMES)}


def _idefics(blanks: Blanks, model: Any) -> dict[str, Any]:
    return {
        "pixel_values": images(blanks, model.config, "batch", 1),
        "image_attention_mask": blanks.ids("batch", "length", 1),
    }


def _kosmos_2(blanks: Blanks, model: Any) -> dict[str, Any]:
    return {
        "pixel_values": images(blanks, model.config),
        "image_embeds_position_mask": blanks.flags("batch", "length"),
    }


def _pix2struct(blanks: Blanks, model: Any) -> dict[str, Any]:
    width = model.config.vision_config.patch_embed_hidden_size + 2  # row and column of the patch come first
    return {
        "flattened_patches": blanks.features("batch", MAX_PATCHES, width),
        "decoder_input_ids": blanks.ids("batch", "length"),
    }


def _pixels_in(blanks: Blanks, model: Any) -> dict[str, Any]:
    return {"pixel_values": images(blanks, model.config), "decoder_input_ids": blanks.ids("batch", "length")}


def _pi0(blanks: Blanks, model: Any) -> dict[str, Any]:
    config = model.config
    return {
        "state": blanks.features("batch", config.max_state_dim),
        "noise": blanks.features("batch", config.chunk_size, config.max_action_dim),
        "timestep": blanks.features("batch"),
        "pixel_values": images(blanks, config, "batch", CAMERAS),
        "pixel_attention_mask": blanks.flags("batch", CAMERAS),
    }


def _udop(blanks: Blanks, model: Any) -> dict[str, Any]:
    return {
        "bbox": blanks.features("batch", "source", 4),
        "attention_mask": blanks.ids("batch", "source"),
    }


def _draft_of_gemma4(blanks: Blanks, model: Any) -> dict[str, Any]:
    """One position of a draft model, which reads the keys and values of its target's last layer of each kind."""
    shared = {}
    for layer in model.model.layers:
        attention = layer.self_attn
        heads = attention.config.num_attention_heads // attention.num_key_value_groups
        size = ("batch", heads, "length", attention.head_dim)
        if attention.layer_type not in shared:
            shared[attention.layer_type] = (blanks.features(*size), blanks.features(*size))
    return {
        "input_ids": None,
        "inputs_embeds": blanks.features("batch", 1, 2 * model.config.backbone_hidden_size),
        "position_ids": blanks.ids("batch", 1),
        "shared_kv_states": shared,
    }


def _sound_in(blanks: Blanks, model: Any) -> dict[str, Any]:
    """Whisper's features of 30 s of audio, two frames per encoder position; empty for a decoder alone."""
    if "input_features" not in inspect.signature(model.forward).parameters:
        return {}
    config = model.config
    return {"input_features": blanks.features("batch", config.num_mel_bins, 2 * config.max_source_positions)}


PROMPTS: Mapping[str, Callable[[Blanks, Any], dict[str, Any]]] = {
    "blip": _blip,
    "blip-2": _blip_2,
    "recurrent_gemma": _own_cache,
    "instructblip": _instructblip,
    "instructblipvideo": _instructblipvideo,
    "gemma4_unified_assistant": _draft_of_gemma4,
    "idefics": _idefics,
    "kosmos-2": _kosmos_2,
    "pix2struct": _pix2struct,
    "pp_formulanet": _pixels_in,
    "vision-encoder-decoder": _pixels_in,
    "whisper": _sound_in,
    "pi0": _pi0,
    "udop": _udop,
}
"""Required arguments of a prompt step other than token ids, by model type."""

WITHOUT_SOURCE_IDS = frozenset({"pix2struct", "pp_formulanet", "vision-encoder-decoder", "whisper"})
"""Model types of encoder-decoders whose encoder reads no tokens."""

WHOLE_SEQUENCE = frozenset({"cpmant", "openai-gpt", "xlm"})
"""Models whose decode step takes all tokens again: cpmant drops the cached ones itself, the others have no cache."""

DECODERS: Mapping[str, str] = {
    "blip": "text_decoder",
    "blip-2": "language_model",
    "instructblip": "language_model",
    "instructblipvideo": "language_model",
    "kosmos-2": "text_model",
}
"""Models that call only a submodule for each new token; its path, by model type."""


def _blip_decode(given: Mapping[str, Any], result: Any) -> dict[str, Any]:
    return {"encoder_hidden_states": result["image_embeds"]}


def _idefics_decode(given: Mapping[str, Any], result: Any) -> dict[str, Any]:
    return {
        "image_encoder_embeddings": result["image_outputs"].last_hidden_state,
        "image_attention_mask": given["image_attention_mask"][:, -1:],
    }


def _pi0_decode(given: Mapping[str, Any], result: Any) -> dict[str, Any]:
    return {name: given[name] for name in ("state", "noise", "timestep")}


def _expert_encoder_decode(given: Mapping[str, Any], result: Any) -> dict[str, Any]:
    from transformers.modeling_outputs import MoEModelOutput

    return {"encoder_outputs": MoEModelOutput(last_hidden_state=result["encoder_last_hidden_state"])}


def _draft_decode(given: Mapping[str, Any], result: Any) -> dict[str, Any]:
    return {"input_ids": None, **given}  # a draft model runs in decode steps only


def _udop_decode(given: Mapping[str, Any], result: Any) -> dict[str, Any]:
    output = sys.modules["transformers.models.udop.modeling_udop"].BaseModelOutputWithAttentionMask
    mask = given["attention_mask"]
    return {"encoder_outputs": output(last_hidden_state=result["encoder_last_hidden_state"], attention_mask=mask)}


DECODES: Mapping[str, Callable[[Mapping[str, Any], Any], dict[str, Any]]] = {
    "blip": _blip_decode,
    "gemma4_unified_assistant": _draft_decode,
    "idefics": _idefics_decode,
    "nllb-moe": _expert_encoder_decode,
    "pi0": _pi0_decode,
    "switch_transformers": _expert_encoder_decode,
    "udop": _udop_decode,
}
"""Arguments of a decode step other than token and caches, made from the prompt's arguments and result."""
