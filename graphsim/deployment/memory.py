"""What lies in a device's memory: weights, KV cache and state, peak activations, adapters, the runtime."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import reduce
from typing import Any

import networkx as nx
import numpy as np

from graphsim.graph import walk
from graphsim.ops import Input, Op, Repeat
from graphsim.symbolic.questions import may_be_nonzero
from graphsim.units import Num

RUNTIME_BYTES = 2.0**30
"""Context, libraries and workspaces of a GPU runtime: 0.5 to 1.5 GB are reported for CUDA with cuBLAS; the middle."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Memory:
    """Bytes per device; of the fullest stage where there are several.

    max_batch: the largest batch that fits on all devices together
    """

    weights_bytes: Num
    kv_cache_bytes: Num
    activations_bytes: Num
    adapters_bytes: Num
    overhead_bytes: Num
    capacity_bytes: Num
    max_batch: Num

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
        """Whether it all fits; one answer per scenario."""
        fits = np.asarray(self.total_bytes <= self.capacity_bytes)
        return bool(fits) if fits.ndim == 0 else fits

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers by name, for JSON."""
        named = {field.name: getattr(self, field.name) for field in fields(self)}
        return named | {"total_bytes": self.total_bytes, "fits": self.fits}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sequences:
    """How a batch is dealt out: to replicas, and on each of them to micro-batches of the pipeline.

    replica, micro_batch: sequences on the fullest replica, and in its largest micro-batch
    micro_batches: how many there are when there are sequences enough
    """

    replica: Num
    micro_batch: Num
    micro_batches: int
    replicas: Num


def memory_of(
    prefill: Sequence[nx.DiGraph], decode: Sequence[nx.DiGraph], *, sequences: Sequences, slots: Num, capacity: Num
) -> Memory:
    """Memory of the fullest stage.

    prefill, decode: graphs of the stages for the largest micro-batch, decode at the final context
    slots: adapters kept on the device
    """
    stages = [_stage(p, d, sequences, slots, capacity) for p, d in zip(prefill, decode, strict=True)]
    fullest = reduce(np.maximum, [stage.total_bytes for stage in stages])

    def of(name: str) -> Num:
        chosen: Num = getattr(stages[-1], name)
        for stage in stages:
            chosen = np.where(stage.total_bytes >= fullest, getattr(stage, name), chosen)
        return chosen[()] if isinstance(chosen, np.ndarray) else chosen

    most = reduce(np.minimum, [stage.max_batch for stage in stages])
    return Memory(**{field.name: of(field.name) for field in fields(Memory)} | {"max_batch": most})


def _stage(prefill: nx.DiGraph, decode: nx.DiGraph, sequences: Sequences, slots: Num, capacity: Num) -> Memory:
    weights = sum((weight_bytes(op) * n for _, op, n in walk(decode)), start=0.0)
    adapters = slots * sum((adapter_bytes(op) * n for _, op, n in walk(decode)), start=0.0)
    live = np.maximum(peak_activation_bytes(prefill), peak_activation_bytes(decode))
    state = sum((op.state_bytes * n for _, op, n in walk(decode)), start=0.0) / sequences.micro_batch
    room = np.maximum(capacity - weights - adapters - RUNTIME_BYTES, 0.0) * (1.0 + 1e-12)
    most = _most_sequences(room, state, live / sequences.micro_batch, sequences.micro_batches)
    return Memory(
        weights_bytes=weights,
        kv_cache_bytes=state * sequences.replica,
        activations_bytes=live,
        adapters_bytes=adapters,
        overhead_bytes=RUNTIME_BYTES,
        capacity_bytes=capacity,
        max_batch=most * sequences.replicas,
    )


def _most_sequences(room: Num, state: Num, live: Num, micro_batches: int) -> Num:
    """The most sequences that `room` holds: all keep their state, those of the largest micro-batch are live."""
    state, live = np.maximum(state, 1e-300), np.maximum(live, 1e-300)
    whole = np.floor(room / (micro_batches * state + live))  # sequences in each micro-batch
    further = np.floor((room - (whole + 1.0) * live) / state)  # when some micro-batches hold one more
    most: Num = np.maximum(whole * micro_batches, np.minimum((whole + 1.0) * micro_batches, further))
    return most


def weight_bytes(op: Op) -> Num:
    """Memory of the model's own weights in an operation."""
    return 0.0 if op.adapter else op.weight_storage_bytes


def adapter_bytes(op: Op) -> Num:
    """Memory of one adapter's weights in an operation."""
    return op.weight_storage_bytes if op.adapter else 0.0


def peak_activation_bytes(graph: nx.DiGraph) -> Num:
    """The most that values alive at the same time take, in launch order; a value lives until its last use.

    A view takes no memory; the value behind it lives until the last use of the view.
    Keys and values that attention reads from the cache are not activations and do not count.
    """
    ends = _ends_of_life(graph)
    alive: Num = 0.0
    peak: Num = 0.0
    dying: dict[int, list[tuple[Num, Num]]] = {}
    for place, (name, op) in enumerate(graph.nodes(data="op")):
        inner = peak_activation_bytes(op.body) - _entry_bytes(op) if isinstance(op, Repeat) else 0.0
        size, end = _result_bytes(op), ends[name]
        alive = alive + size
        peak = np.maximum(peak, alive + np.maximum(inner, 0.0))
        for at in {end} if isinstance(end, int) else set(np.ravel(end).tolist()):
            dying.setdefault(at, []).append((size, end))
        for dead, when in dying.pop(place, []):
            alive = alive - (dead if isinstance(when, int) else np.where(np.equal(when, place), dead, 0.0))
    return peak


def _ends_of_life(graph: nx.DiGraph) -> dict[str, Any]:
    """The place in launch order of the last use of each value, through views of it; per scenario where these differ."""
    places = {name: place for place, name in enumerate(graph)}

    def end_of(name: str) -> Any:
        ends: list[Any] = [places[name]] if graph.out_degree(name) == 0 else []
        for user in graph.successors(name):
            view: Any = graph.nodes[user]["op"].is_view
            ends.append(np.where(view, end_of(user), places[user]) if may_be_nonzero(view) else places[user])
        end = reduce(np.maximum, ends)
        return end if np.ndim(end) else int(end)

    return {name: end_of(name) for name in graph}


def _result_bytes(op: Op) -> Num:
    """New memory that the result takes."""
    if may_be_nonzero(op.state_bytes):
        return 0.0
    taken = op.out_elems * op.activations.bytes
    return np.where(op.is_view, 0.0, taken)[()] if may_be_nonzero(op.is_view) else taken


def _entry_bytes(op: Repeat) -> Num:
    entry = next((inner for _, inner in op.body.nodes(data="op") if isinstance(inner, Input)), None)
    return 0.0 if entry is None else entry.elems * entry.activations.bytes
