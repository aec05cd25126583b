"""KV caches of transformers: each update is recorded as one row, whose result is what attention reads."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from graphsim.models.capture.recorder import Recorder
from graphsim.models.capture.replacing import loaded, replaced


def wrap_caches(recorder: Recorder, stack: ExitStack) -> None:
    """Record each cache update as one row until the stack closes."""
    caches = loaded("transformers.cache_utils")
    if caches is None:
        return
    known: list[Any] = [value for value in vars(caches).values() if isinstance(value, type)]
    for owner in (value for value in known if issubclass(value, caches.Cache)):
        if "update" in vars(owner):
            stack.enter_context(replaced(owner, "update", _update(recorder, owner.update)))
        if "update_indexer" in vars(owner):
            stack.enter_context(replaced(owner, "update_indexer", _update_indexer(recorder, owner.update_indexer)))


def _update(recorder: Recorder, function: Callable[..., Any]) -> Callable[..., Any]:
    def update(cache: Any, key: Any, value: Any, layer: int, *args: Any, **kwargs: Any) -> Any:
        held = cache.layers[layer] if layer < len(getattr(cache, "layers", ())) else None
        return recorder.whole(
            "kv_cache", "update", lambda: function(cache, key, value, layer, *args, **kwargs), [key, value],
            window=getattr(held, "sliding_window", 0) or 0,
        )  # fmt: skip

    return update


def _update_indexer(recorder: Recorder, function: Callable[..., Any]) -> Callable[..., Any]:
    def update(cache: Any, key: Any, layer: int, *args: Any, **kwargs: Any) -> Any:
        return recorder.whole(
            "kv_cache",
            "update_indexer",
            lambda: function(cache, key, layer, *args, **kwargs),
            [key],
            window=0,
        )

    return update
