"""What lies in a device's memory: weights, KV cache and state, peak activations, adapters, the runtime."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import reduce
from typing import Any

import networkx as nx
import numpy as np

from graphsim.graph import walk
from graphsim.ops import Input, LoraGemm, Op, Repeat
from graphsim.units import Num

RUNTIME_BYTES = 2.0**30
"""Context, libraries and workspaces of a GPU runtime: 0.5 to 1.5 GB are reported for CUDA with cuBLAS; the middle."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Memory:
    """Bytes per device; of the fullest stage where there are several."""

    weights_bytes: Num
    kv_cache_bytes: Num
    activations_bytes: Num
    adapters_bytes: Num
    overhead_bytes: Num
    capacity_bytes: Num
    batch: Num

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

    @property
    def max_batch(self) -> Num:
        """The largest batch that fits: cache and activations grow in proportion to it, the rest does not."""
        fixed = self.weights_bytes + self.adapters_bytes + self.overhead_bytes
        each = (self.kv_cache_bytes + self.activations_bytes) / self.batch
        room = np.maximum(self.capacity_bytes - fixed, 0.0)
        return np.floor(room / np.maximum(each, 1e-300) * (1 + 1e-12))

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers by name, for JSON."""
        named = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "batch"}
        return named | {"total_bytes": self.total_bytes, "fits": self.fits, "max_batch": self.max_batch}


def memory_of(
    prefill: Sequence[nx.DiGraph],
    decode: Sequence[nx.DiGraph],
    *,
    batch: Num,
    micro_batches: int,
    slots: Num,
    capacity: Num,
) -> Memory:
    """Memory of the fullest stage.

    prefill, decode: graphs of the stages for one micro-batch, decode at the final context
    batch: sequences on one replica; slots: adapters kept on the device
    """
    weights = [sum((_weights(op) * n for _, op, n in walk(g)), start=0.0) for g in decode]
    adapters = [slots * sum((_adapter(op) * n for _, op, n in walk(g)), start=0.0) for g in decode]
    state = [micro_batches * sum((op.state_bytes * n for _, op, n in walk(g)), start=0.0) for g in decode]
    live = [
        np.maximum(peak_activation_bytes(p), peak_activation_bytes(d)) for p, d in zip(prefill, decode, strict=True)
    ]
    totals = [w + a + s + x for w, a, s, x in zip(weights, adapters, state, live, strict=True)]
    fullest = reduce(np.maximum, totals)

    def of(parts: list[Num]) -> Num:
        chosen: Num = parts[-1]
        for part, total in zip(parts, totals, strict=True):
            chosen = np.where(total >= fullest, part, chosen)
        return chosen[()] if isinstance(chosen, np.ndarray) else chosen

    return Memory(
        weights_bytes=of(weights),
        kv_cache_bytes=of(state),
        activations_bytes=of(live),
        adapters_bytes=of(adapters),
        overhead_bytes=RUNTIME_BYTES,
        capacity_bytes=capacity,
        batch=batch,
    )


def _weights(op: Op) -> Num:
    return 0.0 if isinstance(op, LoraGemm) else op.weight_storage_bytes


def _adapter(op: Op) -> Num:
    return op.weight_storage_bytes if isinstance(op, LoraGemm) else 0.0


def peak_activation_bytes(graph: nx.DiGraph) -> Num:
    """The most that values alive at the same time take, in launch order; a value lives until its last use.

    Keys and values that attention reads from the cache are not activations and do not count.
    """
    last_use = {name: name for name in graph}
    for name in graph:
        for source in graph.predecessors(name):
            last_use[source] = name
    freed: dict[str, list[str]] = {}
    for name, user in last_use.items():
        freed.setdefault(user, []).append(name)
    alive: Num = 0.0
    peak: Num = 0.0
    size: dict[str, Num] = {}
    for name, op in graph.nodes(data="op"):
        inner = peak_activation_bytes(op.body) - _entry_bytes(op) if isinstance(op, Repeat) else 0.0
        size[name] = _result_bytes(op)
        alive = alive + size[name]
        peak = np.maximum(peak, alive + np.maximum(inner, 0.0))
        for dead in freed.get(name, []):
            alive = alive - size[dead]
    return peak


def _result_bytes(op: Op) -> Num:
    return 0.0 if np.any(op.state_bytes) else op.out_elems * op.activations.bytes


def _entry_bytes(op: Repeat) -> Num:
    entry = next((inner for _, inner in op.body.nodes(data="op") if isinstance(inner, Input)), None)
    return 0.0 if entry is None else entry.elems * entry.activations.bytes
