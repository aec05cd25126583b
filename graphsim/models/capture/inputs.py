"""Arguments of a model's forward in a prompt and in a decode step, as tensors with named sizes."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch

from graphsim.errors import ConfigError, choices_text
from graphsim.models.capture import demanded
from graphsim.models.capture.blanks import Blanks, Make
from graphsim.units import short

CACHES = ("cache", "past_key_values", "cache_params", "state", "mems", "past_buckets_states")
"""Fields of a result that the next step takes: keys and values, states, earlier hidden states. Only the first one found
counts: later ones are older names of it."""

TOKEN_NAMES = ("input_ids", "ids", "idx", "tokens", "token_ids", "inputs")
"""Possible names of the argument with token ids, for modules from outside transformers."""


def given_inputs(model: Any, make: Make, inputs: Any, *, batch: int, length: int) -> dict[str, Any]:
    """The arguments of a prompt step, modelled on a user's example tensors.

    inputs: example tensors by argument name, whose first two dimensions are batch and length
    batch, length: hints of the symbols

    Raises:
        ConfigError: the examples are not a mapping of tensors of two dimensions or more, or forward has no argument of
            that name.
    """
    if not isinstance(inputs, Mapping) or not inputs:
        raise ConfigError(f"inputs = {short(inputs)} is not allowed; expected a mapping of names to example tensors")
    forward = inspect.signature(model.forward).parameters
    given: dict[str, Any] = {}
    for name, tensor in inputs.items():
        if not isinstance(tensor, torch.Tensor) or tensor.dim() < 2:
            raise ConfigError(f"inputs: {short(name)} is not allowed; expected an example tensor [batch, length, …]")
        if not _takes(forward, name):
            raise ConfigError(f"inputs: {short(name)} is not taken by the forward; {choices_text(name, forward)}")
        bare = torch.empty((batch, length, *tensor.shape[2:]), dtype=tensor.dtype, device="meta")
        given[name] = make(bare, {0: "batch", 1: "length"})
    return given


def prompt_inputs(model: Any, make: Make, *, batch: int, length: int, source_length: int) -> dict[str, Any]:
    """The arguments of a prompt step.

    Token ids of shape [batch, length]; for an encoder-decoder, the encoder's ids [batch, source] and the decoder's ids
    [batch, length]; and other inputs that the model's forward requires, at the sizes that its config states.

    batch, length, source_length: hints of the symbols

    Raises:
        ConfigError: forward has required arguments that are not known here.
    """
    forward = inspect.signature(model.forward).parameters
    blanks = _blanks(model, make, batch=batch, length=length, source=source_length)
    model_type = _model_type(model)
    given: dict[str, Any] = {}
    if getattr(getattr(model, "config", None), "is_encoder_decoder", False) and "decoder_input_ids" in forward:
        given["decoder_input_ids"] = blanks.ids("batch", "length")
        if model_type not in demanded.WITHOUT_SOURCE_IDS:
            given["input_ids"] = blanks.ids("batch", "source")
    else:
        given[_token_name(model, forward)] = blanks.ids("batch", "length")
    if model_type in demanded.PROMPTS:
        given |= demanded.PROMPTS[model_type](blanks, model)
    given = {name: value for name, value in given.items() if value is not None} | _cached(model, forward)
    missing = [name for name, p in forward.items() if p.default is p.empty and p.kind < p.VAR_POSITIONAL]
    if missing := [name for name in missing if name not in given]:
        raise ConfigError(f"{type(model).__name__}.forward requires {', '.join(missing)}; give example inputs")
    return given


def decode_module(model: Any) -> Any:
    """The module whose forward is a decode step: the model, or the submodule that `generate` calls for each token."""
    return model.get_submodule(demanded.DECODERS.get(_model_type(model), ""))


def decode_inputs(model: Any, make: Make, given: Mapping[str, Any], result: Any, *, batch: int) -> dict[str, Any]:
    """The arguments of the decode step (of `decode_module`) after a prompt: one more token and the prompt's caches.

    given, result: arguments and result of the prompt step
    batch: hint of the symbol

    Raises:
        ConfigError: the prompt's result contains no cache.
    """
    decoder = decode_module(model)
    forward = inspect.signature(decoder.forward).parameters
    model_type = _model_type(model)
    name = "decoder_input_ids" if "decoder_input_ids" in given else _token_name(model, forward)
    new = _blanks(model, make, batch=batch).ids("batch", 1)
    more: dict[str, Any] = {name: new, **_cached(decoder, forward)}
    if model_type in demanded.WHOLE_SEQUENCE:
        more[name] = torch.cat([given[name], new], dim=1)
    holders = (result, _field(result, "language_model_outputs"), given)
    more |= next((cache for cache in (_cache_of(holder, forward) for holder in holders) if cache), {})
    encoded = _field(result, "encoder_last_hidden_state")
    if encoded is not None and "encoder_outputs" in forward:
        from transformers.modeling_outputs import BaseModelOutput

        more["encoder_outputs"] = BaseModelOutput(last_hidden_state=encoded)
    if model_type in demanded.DECODES:
        more |= demanded.DECODES[model_type](given, result)
    known = model_type in demanded.WHOLE_SEQUENCE or model_type in demanded.DECODES
    if not known and not any(key in more for key in CACHES):
        raise ConfigError(f"{type(model).__name__} returns no cache, so a decode step cannot be captured")
    return {name: value for name, value in more.items() if value is not None}


def _cache_of(result: Any, forward: Mapping[str, inspect.Parameter]) -> dict[str, Any]:
    """The cache in a result, by its argument name in forward; empty if there is none."""
    for key in CACHES:  # one at a time: transformers warns about older names that a result also has
        if _takes(forward, key) and (cache := _field(result, key)) is not None:
            return {key: cache}
    return {}


def _blanks(model: Any, make: Make, **hints: int) -> Blanks:
    floating = (parameter.dtype for parameter in model.parameters() if parameter.is_floating_point())
    return Blanks(make=make, hints=hints, dtype=next(floating, torch.bfloat16))


def _model_type(model: Any) -> str:
    return getattr(getattr(model, "config", None), "model_type", "")


def _field(result: Any, key: str) -> Any:
    return result.get(key) if isinstance(result, Mapping) else getattr(result, key, None)


def _token_name(model: Any, forward: Mapping[str, inspect.Parameter]) -> str:
    for name in TOKEN_NAMES:
        if name in forward:
            return name
    raise ConfigError(
        f"{type(model).__name__}.forward({', '.join(forward)}) has no argument for token ids with a known "
        f"name; give example inputs"
    )


def _cached(model: Any, forward: Mapping[str, inspect.Parameter]) -> dict[str, bool]:
    """`use_cache=True` if forward takes it; an encoder-decoder must name it, as keyword arguments go to both parts."""
    encodes = getattr(getattr(model, "config", None), "is_encoder_decoder", False)
    takes = "use_cache" in forward if encodes else _takes(forward, "use_cache")
    return {"use_cache": True} if takes else {}


def _takes(forward: Mapping[str, inspect.Parameter], name: str) -> bool:
    return name in forward or any(parameter.kind is parameter.VAR_KEYWORD for parameter in forward.values())
