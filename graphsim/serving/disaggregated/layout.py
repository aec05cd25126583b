"""The layout of a prompt's keys and values on the devices of one worker, and the traffic per link to another layout.

Heads are sharded over tensor-parallel ranks; where there are more ranks than heads of keys and values, ranks hold
copies, and latent attention keeps its one latent vector on every rank. Context-parallel ranks have a part of the tokens
each, or all of them. A decode worker's devices fill their own caches, so the bytes that arrive are those of its layout:
with n_d devices of b_d bytes each, out of n_p devices that send,

    the busiest link carries  max(b_d, b_d * n_d / n_p)

as receivers are spread evenly over senders that hold what they need (vLLM pull requests 18833 and 19691: a rank of the
larger side reads a part of, or shares, one rank of the smaller side).
"""

from __future__ import annotations

from dataclasses import dataclass

import networkx as nx
import numpy as np

from graphsim.analysis.slots import footprint_of
from graphsim.deployment.cache import WHOLE_CACHE, RequestCache
from graphsim.deployment.deployment import Deployment
from graphsim.errors import ConfigError
from graphsim.graph import walk
from graphsim.ops import KvCache, MlaAttention


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheLayout:
    """The cache layout of one worker.

    stages: what each pipeline stage's devices keep of a request
    ranks: number of devices of one stage
    buffers: number of buffers of keys and of values on the device with the most, which are sent one by one: two per
        layer, or one where a layer keeps a latent vector (vLLM, NIXL regions of pull request 17990)
    """

    stages: tuple[RequestCache, ...]
    ranks: int
    buffers: int

    @property
    def devices(self) -> int:
        """Number of devices of the worker."""
        return self.ranks * len(self.stages)

    def bytes(self, tokens: float) -> float:
        """Bytes of a prompt on all devices together."""
        return self.ranks * sum(float(stage.bytes(tokens)) for stage in self.stages)

    def fullest(self, tokens: float) -> float:
        """Bytes of a prompt on the device that keeps most of it."""
        return max(float(stage.bytes(tokens)) for stage in self.stages)


def layout_of(deployment: Deployment) -> CacheLayout:
    """How a worker keeps requests. Raises ConfigError for a model whose cache no footprint describes."""
    stages = tuple(room.cache for room in footprint_of(deployment).rooms)
    ranks = int(np.max(np.asarray(deployment.parallelism.tp * deployment.parallelism.cp)))
    return CacheLayout(stages=stages, ranks=ranks, buffers=max(map(_buffers, deployment.stages(WHOLE_CACHE))))


def _buffers(stage: nx.DiGraph) -> int:
    """Number of buffers of a stage's layers."""
    found, latent = 0.0, False
    for _, op, times in walk(stage):
        found += float(times) if isinstance(op, KvCache) else 0.0
        latent = latent or isinstance(op, MlaAttention)
    return round(found) * (1 if latent else 2)


def link_bytes(sender: CacheLayout, receiver: CacheLayout, tokens: float) -> float:
    """Bytes on the busiest link for a prompt of this many tokens."""
    return max(receiver.fullest(tokens), receiver.bytes(tokens) / sender.devices)


def check_alike(prefill: Deployment, decode: Deployment) -> None:
    """Raise ConfigError if one side cannot use the other's keys and values."""
    if prefill.model.name != decode.model.name:
        raise ConfigError(
            f"prefill: model = {prefill.model.name!r} is not the decode workers' {decode.model.name!r}; keys and "
            "values of one model are of no use to another"
        )
    ours, theirs = prefill.precision.kv.name, decode.precision.kv.name
    if ours != theirs:
        raise ConfigError(
            f"prefill: precision keeps the cache in {ours}, the decode workers in {theirs}; both sides must "
            f"use one format, since the cache is transferred unchanged; add kv={theirs}"
        )
