"""Cost of changing adapters: merge, unmerge, switch, restore and load.

Merging is memory-bound: 2 n k bytes-per-weight plus the factors if one kernel does it, plus the traffic of temporaries
in engines that have them (PEFT writes the product, scales it and adds it). Unmerging is the same with the other sign; a
direct switch W += s2 B2 A2 - s1 B1 A1 is one pass at the sum of the ranks. Loading into a slot is limited by the host's
time per tensor or by the bandwidth of the host link, whichever takes longer; from disk by the disk's bandwidth.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from graphsim.brief import figures_text
from graphsim.cost.base import CostModel
from graphsim.deployment.arguments import deployed
from graphsim.deployment.deployment import DEFAULT_ENGINE, REFERENCE, Deployment, EngineRef, HardwareRef, ModelRef
from graphsim.deployment.memory import adapter_bytes
from graphsim.deployment.parallelism import Parallelism
from graphsim.errors import ConfigError
from graphsim.graph import walk
from graphsim.graph.schedule import latest
from graphsim.hardware import Hardware
from graphsim.lora.config import LoraConfig
from graphsim.lora.profile import EngineProfile, load_profile
from graphsim.ops import LoraMerge
from graphsim.ops.precision import Precision
from graphsim.result import plain
from graphsim.units import Num


@dataclass(frozen=True, slots=True, kw_only=True)
class Lifecycle:
    """Seconds and bytes per device; pipeline stages work in parallel, and the slowest counts.

    merge_s: merge the adapter into the weights
    unmerge_s: remove it from the weights
    switch_s: replace a merged adapter by another in one pass
    restore_s: copy the original weights back, which requires `copy_bytes` of additional memory
    load_s: load from host memory into a slot
    warm_disk_s, cold_disk_s: read from a cached or uncached file into host memory
    stall_s, disk_stall_s: time that running requests wait for a load from host memory or from a cached file; 0 if the
        engine loads while steps run
    temporary_bytes: temporary for the largest weight during a merge
    caution: caveats on the times, such as an unmeasured device
    """

    merge_s: Num
    unmerge_s: Num
    switch_s: Num
    restore_s: Num
    load_s: Num
    warm_disk_s: Num
    cold_disk_s: Num
    stall_s: Num
    disk_stall_s: Num
    adapter_bytes: Num
    tensors: Num
    copy_bytes: Num
    temporary_bytes: Num
    caution: str = ""

    def __repr__(self) -> str:
        names = [own.name for own in fields(self) if own.name != "caution"]
        return figures_text("Lifecycle", {name: getattr(self, name) for name in names}, self.caution)

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers by name for JSON."""
        return {field.name: plain(getattr(self, field.name)) for field in fields(self)}


def lifecycle(
    model: ModelRef | Deployment,
    hardware: HardwareRef | None = None,
    lora: LoraConfig | None = None,
    *,
    engine: EngineRef | None = None,
    parallelism: Parallelism | None = None,
    precision: str | Precision | None = None,
    cost: str | CostModel | None = None,
) -> Lifecycle:
    """Times of merging, switching and loading an adapter on a deployment.

    lora: the adapter; by default the model's own, or a common one (rank 16 on attention and MLP)
    The other arguments are those of `simulate`. Raises ConfigError as `simulate` does.
    """
    return lifecycle_of(
        deployed(
            model,
            hardware,
            lora=lora,
            engine=engine,
            parallelism=parallelism,
            precision=precision,
            cost=cost,
            default_engine=DEFAULT_ENGINE,
        )
    )


def lifecycle_of(deployment: Deployment) -> Lifecycle:
    """The lifecycle of a deployment's adapter, independent of the strategy with which it is served."""
    lora, device = replace(deployment.lora or LoraConfig(), enabled=True), deployment.device
    profile, price = deployment.engine or load_profile(REFERENCE), deployment.price
    merged = replace(deployment, lora=replace(lora, strategy="merge", active_adapters=1))
    dynamic = replace(lora, strategy="dynamic", max_lora_rank=0)
    loaded = replace(deployment, lora=dynamic, engine=load_profile(REFERENCE))
    each = [_merges(merged, stage, device, price) for stage in range(merged.parallelism.pp)]
    slowest = {name: latest([stage[name] for stage in each]) for name in each[0]}
    size, tensors = _adapter(loaded)
    load_s = _load_s(profile, device, size, tensors)
    warm_disk_s = profile.disk_s + size / profile.disk_bytes_per_s
    waits = 0.0 if profile.load_overlapped else 1.0
    return Lifecycle(
        **slowest,
        load_s=load_s,
        warm_disk_s=warm_disk_s,
        cold_disk_s=size / profile.cold_disk_bytes_per_s,
        stall_s=waits * load_s,
        disk_stall_s=waits * (warm_disk_s + load_s),
        adapter_bytes=size,
        tensors=tensors,
        caution=deployment.caution,
    )


def _merges(merged: Deployment, stage: int, device: Hardware, price: CostModel) -> dict[str, Num]:
    found: dict[str, Num] = dict.fromkeys(("merge_s", "switch_s", "restore_s", "copy_bytes", "temporary_bytes"), 0.0)
    for _, op, times in walk(merged.held()[stage]):
        if isinstance(op, LoraMerge):
            weight = op.n * op.k * op.weights.bytes * op.copies
            found["merge_s"] += times * price(op, device).latency_s
            found["switch_s"] += times * price(replace(op, rank=2.0 * op.rank), device).latency_s
            found["copy_bytes"] += times * weight
            found["restore_s"] += times * 2.0 * weight / device.memory_bytes_per_s
            used = np.greater(op.scratch_passes, 0) * op.n * op.k * 2.0
            found["temporary_bytes"] = np.maximum(found["temporary_bytes"], used)
    return found | {"unmerge_s": found["merge_s"]}


def _adapter(loaded: Deployment) -> tuple[Num, Num]:
    """Bytes and number of tensors of one adapter, on the device with the most."""
    size: Num = 0.0
    tensors: Num = 0.0
    for graph in loaded.held():
        parts = [(adapter_bytes(op), times) for _, op, times in walk(graph) if op.buffers]
        size = np.maximum(size, sum((part * times for part, times in parts), start=0.0))
        tensors = np.maximum(tensors, sum(times for _, times in parts))
    return size, tensors


def _load_s(profile: EngineProfile, device: Hardware, size: Num, tensors: Num) -> Num:
    """Seconds to load an adapter: the host issues one copy per tensor while the link transfers earlier ones.

    size: bytes of the adapter
    tensors: number of its tensors
    """
    link = device.host_link
    if link.bytes_per_s <= 0:
        raise ConfigError(f"hardware '{device.name}' has no host_link; add one to its file to load adapters")
    return np.maximum(tensors * profile.load_tensor_s, size / link.bytes_per_s) + link.latency_s
