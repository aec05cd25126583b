"""Memory of a request between steps: keys and values block by block, windows, recurrent state."""

from __future__ import annotations

from dataclasses import dataclass, replace

import networkx as nx
import numpy as np

from graphsim.graph import walk
from graphsim.models.config import ModelConfig
from graphsim.models.media import Media
from graphsim.models.phase import Phase, decode
from graphsim.ops import KvCache
from graphsim.symbolic.questions import may_be_nonzero
from graphsim.units import Num

FAR = 2.0**40
"""A context longer than every window, for which a layer keeps its window, or everything."""

WHOLE_CACHE: Phase = decode(1.0, FAR - 1.0, source_tokens=1.0)
FIRST_TOKEN: Phase = decode(1.0, 0.0)
"""The steps whose graphs show a request's cache: at the end of a very long one, and at its start."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """Tokens that a request has in the caches: of its own, and rows of an encoder."""

    tokens: Num
    source_tokens: Num = 0.0


def kept_of(model: ModelConfig, input_tokens: Num, tokens: Num, media: Media | None = None) -> Kept:
    """Cached tokens of a request with `tokens` input and generated tokens; an encoder-decoder keeps the two
    separately.
    """
    source = model.source_encoder
    if source is None:
        return Kept(tokens=tokens, source_tokens=model.rows_seen(media))
    return Kept(tokens=source.own_tokens(input_tokens, tokens), source_tokens=source.rows_of(input_tokens))


@dataclass(frozen=True, slots=True, kw_only=True)
class CachedLayers:
    """Layers with equal caches of keys and values: at most `window` tokens, of `token_bytes` in all of them."""

    token_bytes: Num
    window: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestCache:
    """Memory of one request on a device.

    layers: those with a cache of keys and values, by window
    state_bytes: what does not grow with the context: recurrent and convolution state
    source_token_bytes: of one row of an encoder in the caches of all layers that attend to it
    block_tokens: tokens of a block, of all ranks that share the cache; it is taken as a whole (PagedAttention, arXiv
        2309.06180, section 4.1)
    """

    layers: tuple[CachedLayers, ...]
    state_bytes: Num
    source_token_bytes: Num = 0.0
    block_tokens: Num = 1.0

    @property
    def token_bytes(self) -> Num:
        """Bytes of one token in the caches of all layers, windowed ones included."""
        return sum((layers.token_bytes for layers in self.layers), start=0.0)

    def bytes(self, tokens: Num, source_tokens: Num = 0.0) -> Num:
        """Bytes of a request with a number of tokens, prompt and generated, and rows of an encoder.

        Σ over layers of token_bytes · ⌈min(tokens, window) / block⌉ · block, as many for its rows, and the state.
        """
        block = self.block_tokens
        held: Num = self.state_bytes
        if may_be_nonzero(self.source_token_bytes):
            held = held + self.source_token_bytes * np.ceil(source_tokens / block) * block
        for layers in self.layers:
            held = held + layers.token_bytes * np.ceil(np.minimum(tokens, layers.window) / block) * block
        return held


def cache_of(far: nx.DiGraph, near: nx.DiGraph, block_tokens: float, ranks: Num = 1.0) -> RequestCache:
    """The cache of one request in the layers of a stage.

    far, near: of the steps `WHOLE_CACHE` and `FIRST_TOKEN`; what grows between them in an operation that keeps no keys
    and values grows with every token
    ranks: number of ranks that each keep an equal part of the rows; a block of each makes one of theirs (vLLM's blocks
        hold as many more tokens)
    """
    by_window: dict[float, Num] = {}
    of_source: Num = 0.0
    for _, op, times in walk(far):
        if isinstance(op, KvCache) and op.source:  # of one row
            of_source = of_source + op.state_bytes * times
        elif isinstance(op, KvCache) and may_be_nonzero(op.kept_tokens):
            window = float(op.kept_tokens)
            row = replace(op, kept_tokens=1.0).state_bytes * times / ranks
            by_window[window] = by_window.get(window, 0.0) + row
    first, whole = _other_state_bytes(near), _other_state_bytes(far)
    if may_be_nonzero(whole):
        by_window[FAR] = by_window.get(FAR, 0.0) + (whole - first) / (FAR - 1.0)
    layers = tuple(CachedLayers(token_bytes=row, window=window) for window, row in sorted(by_window.items()))
    return RequestCache(
        layers=layers, state_bytes=first, source_token_bytes=of_source, block_tokens=block_tokens * ranks
    )


def keeps_more(graph: nx.DiGraph) -> bool:
    """Whether a stage keeps other state than keys and values between steps."""
    return may_be_nonzero(_other_state_bytes(graph))


def _other_state_bytes(graph: nx.DiGraph) -> Num:
    return sum((op.state_bytes * times for _, op, times in walk(graph) if not isinstance(op, KvCache)), start=0.0)
