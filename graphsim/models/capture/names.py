"""Functions of a model's own code and of transformers that remain recognisable in a recording.

Rotary embeddings, repeated key heads, attention interfaces and caches consist of many small operations; while a step is
recorded, their functions are wrapped, so that each row states which of them it belongs to.
"""

from __future__ import annotations

import functools
import types
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

from graphsim.models.capture.attentions import WRAPPERS, wrap_attentions
from graphsim.models.capture.caches import wrap_caches
from graphsim.models.capture.recorder import Recorder
from graphsim.models.capture.replacing import loaded, replaced

ROTATIONS = (
    "apply_rotary",
    "apply_multimodal_rotary",
    "apply_interleaved_rotary",
    "apply_multidimensional_rope",
    "rotate_half",
)
"""Prefixes of the names of functions that apply rotary embeddings to queries and keys."""

REPEATS = ("repeat_kv",)
"""Functions that only repeat key heads, which attention kernels avoid."""

CAUSAL_MASKS = ("create_causal_mask", "create_sliding_window_causal_mask", "create_chunked_causal_mask")
"""transformers' functions that create causal masks."""


@contextmanager
def visible(recorder: Recorder) -> Iterator[None]:
    """Wrap the functions that are known by name while a step is recorded."""
    with ExitStack() as stack:
        for module in _sources(recorder.model):
            for name, value in list(vars(module).items()):
                if callable(value) and (wrapped := _wrapped(recorder, name, value)):
                    stack.enter_context(replaced(module, name, wrapped))
        wrap_attentions(recorder, stack)
        wrap_caches(recorder, stack)
        yield


def _sources(model: torch.nn.Module) -> list[Any]:
    names = {cls.__module__ for module in model.modules() for cls in type(module).__mro__}
    own = (loaded(name) for name in sorted(names) if name.partition(".")[0] != "torch")
    return [module for module in own if module is not None]


def _wrapped(recorder: Recorder, name: str, function: Callable[..., Any]) -> Callable[..., Any] | None:
    bare = name.lstrip("_")
    if bare in WRAPPERS:
        return WRAPPERS[bare](recorder, function)
    if not isinstance(function, types.FunctionType):
        return None
    if bare.startswith(ROTATIONS):
        return _scoped(recorder, "rope", function)
    if bare in CAUSAL_MASKS:
        return _scoped(recorder, "causal", function)
    if bare in REPEATS:
        return _silent(recorder, function)
    return None


def _scoped(recorder: Recorder, kind: str, function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        with recorder.scope(kind):
            return function(*args, **kwargs)

    return call


def _silent(recorder: Recorder, function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def call(value: Any, *args: Any, **kwargs: Any) -> Any:
        return recorder.whole("alias", function.__name__, lambda: function(value, *args, **kwargs), [value])

    return call
