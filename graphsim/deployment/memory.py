"""Contents of a device's memory: weights, KV cache and state, peak activations, adapters, the runtime."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import reduce
from typing import Any

import networkx as nx
import numpy as np

from graphsim.brief import figures_text
from graphsim.deployment.activations import peak_activation_bytes
from graphsim.deployment.cache import FIRST_TOKEN, WHOLE_CACHE, Kept, RequestCache, cache_of, keeps_more
from graphsim.deployment.context import cache_ranks, has_ranks
from graphsim.deployment.deployment import Deployment
from graphsim.deployment.workspace import Workspace, profiled_step, profiles, workspace_of
from graphsim.graph import walk
from graphsim.models.phase import Phase
from graphsim.ops import Op
from graphsim.symbolic.substitute import with_fields
from graphsim.units import Num


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Memory:
    """Bytes per device; of the fullest stage where there are several.

    activations_bytes: of a step whose prompts are whole; of the step that the engine profiles, if it splits prompts
        into chunks, independent of the requests
    overhead_bytes: libraries, and memory that the engine keeps free (see `graphsim.lora.memory.EngineMemory`)
    capacity_bytes: of the device, as much as the engine takes
    max_batch: the largest batch that fits on all devices together
    """

    weights_bytes: Num
    kv_cache_bytes: Num
    activations_bytes: Num
    adapters_bytes: Num
    overhead_bytes: Num
    capacity_bytes: Num
    max_batch: Num

    def __repr__(self) -> str:
        parts = {field.name: getattr(self, field.name) for field in fields(self) if field.name.endswith("_bytes")}
        fits = "fits" if np.all(self.fits) else "does not fit" if not np.any(self.fits) else "some do not fit"
        return figures_text("Memory", {"total_bytes": self.total_bytes, **parts}, fits)

    @property
    def total_bytes(self) -> Num:
        """All together."""
        return (
            self.weights_bytes
            + self.kv_cache_bytes
            + self.activations_bytes
            + self.adapters_bytes
            + self.overhead_bytes
        )

    @property
    def fits(self) -> Any:
        """Whether everything fits; one answer per scenario."""
        fits = np.asarray(self.total_bytes <= self.capacity_bytes)
        return bool(fits) if fits.ndim == 0 else fits

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers by name, for JSON."""
        named = {field.name: getattr(self, field.name) for field in fields(self)}
        return named | {"total_bytes": self.total_bytes, "fits": self.fits}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sequences:
    """How a batch is distributed: to replicas, and on each of them to micro-batches of the pipeline.

    replica, micro_batch: sequences on the fullest replica, and in its largest micro-batch
    micro_batches: their number if there are enough sequences
    """

    replica: Num
    micro_batch: Num
    micro_batches: int
    replicas: Num


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Stage:
    """Memory of a pipeline stage, without the caches of its requests.

    graph: of a step in which every adapted linear is a module; only its weights and adapters count
    cache: of one request
    live_bytes: activations of the largest micro-batch, if these are not in the workspace
    cache_share: share of the remaining free memory that caches get
    """

    graph: nx.DiGraph
    cache: RequestCache
    workspace: Workspace
    live_bytes: Num
    cache_share: float = 1.0


def stages_of(deployment: Deployment, step: Sequence[Phase] = ()) -> list[Stage]:
    """The stages of a deployment. step: phases of the largest micro-batch, whose activations count if nothing is
    profiled.

    An engine that splits prompts into chunks reserves the memory of its profiled step; otherwise whole prompts count.
    """
    whole, degrees, pp = deployment, deployment.parallelism, deployment.parallelism.pp
    if has_ranks(degrees):  # their caches are parts of a request's whole cache
        whole = with_fields(deployment, {"parallelism": with_fields(degrees, {"cp": 1})})
    ranks = cache_ranks(deployment.model, deployment.engine, degrees)
    graphs = whole.stages(WHOLE_CACHE)
    held = whole.held(WHOLE_CACHE, graphs)
    near = whole.stages(FIRST_TOKEN) if any(map(keeps_more, graphs)) else graphs
    profiled = deployment.stages(profiled_step(deployment)) if profiles(deployment) else [None] * pp
    phases = [] if profiles(deployment) else [deployment.stages(phase) for phase in step]
    return [
        Stage(
            graph=held[i],
            cache=cache_of(graphs[i], near[i], deployment.engine_memory.block_tokens, ranks),
            workspace=workspace_of(deployment, graphs[i], profiled[i], last=i == pp - 1),
            live_bytes=reduce(np.maximum, [0.0, *(peak_activation_bytes(stages[i]) for stages in phases)]),
            cache_share=deployment.engine_memory.cache_share,
        )
        for i in range(pp)
    ]


def memories_of(
    stages: Sequence[Stage], *, sequences: Sequences, kept: Kept, slots: Num, capacity: Num
) -> list[Memory]:
    """Memory of each stage.

    kept: tokens of each request at the end of its generation
    slots: adapters kept on the device
    """
    return [_stage(stage, sequences, kept, slots, capacity) for stage in stages]


def fullest(stages: Sequence[Memory]) -> Memory:
    """Of several stages the one with the most bytes, scenario by scenario; the batch that all of them hold."""
    most = reduce(np.maximum, [stage.total_bytes for stage in stages])

    def of(name: str) -> Num:
        chosen: Num = getattr(stages[-1], name)
        for stage in stages:
            chosen = np.where(stage.total_bytes >= most, getattr(stage, name), chosen)
        return chosen[()] if isinstance(chosen, np.ndarray) else chosen

    batch = reduce(np.minimum, [stage.max_batch for stage in stages])
    return Memory(**{field.name: of(field.name) for field in fields(Memory)} | {"max_batch": batch})


def _stage(stage: Stage, sequences: Sequences, kept: Kept, slots: Num, capacity: Num) -> Memory:
    weights = sum((weight_bytes(op) * n for _, op, n in walk(stage.graph)), start=0.0)
    adapters = slots * sum((adapter_bytes(op) * n for _, op, n in walk(stage.graph)), start=0.0)
    request = stage.cache.bytes(kept.tokens, kept.source_tokens)
    free = np.maximum(capacity - weights - adapters - stage.workspace.total_bytes, 0.0)
    room = free * stage.cache_share * (1.0 + 1e-12)
    most = _most_sequences(room, request, stage.live_bytes / sequences.micro_batch, sequences.micro_batches)
    return Memory(
        weights_bytes=weights,
        kv_cache_bytes=request * sequences.replica,
        activations_bytes=stage.workspace.activations_bytes + stage.live_bytes,
        adapters_bytes=adapters,
        overhead_bytes=stage.workspace.overhead_bytes + free * (1.0 - stage.cache_share),
        capacity_bytes=capacity,
        max_batch=most * sequences.replicas,
    )


def _most_sequences(room: Num, state: Num, live: Num, micro_batches: int) -> Num:
    """The most sequences that `room` holds: all keep their state, those of the largest micro-batch are live.

    Infinite if they keep nothing, as on a stage whose layers read the caches of another.
    """
    state, live = np.maximum(state, LEAST_BYTES), np.maximum(live, LEAST_BYTES)
    whole = np.floor(room / (micro_batches * state + live))  # sequences in each micro-batch
    further = np.floor((room - (whole + 1.0) * live) / state)  # when some micro-batches hold one more
    most: Num = np.maximum(whole * micro_batches, np.minimum((whole + 1.0) * micro_batches, further))
    return most


LEAST_BYTES = 1e-200
"""A divisor instead of 0, so that the quotient is finite."""


def weight_bytes(op: Op) -> Num:
    """Memory of the model's own weights in an operation."""
    return 0.0 if op.adapter else op.weight_storage_bytes


def adapter_bytes(op: Op) -> Num:
    """Memory of one adapter's weights in an operation."""
    return op.weight_storage_bytes if op.adapter else 0.0
