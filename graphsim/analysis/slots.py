"""What adapters take of a device's memory, by module and by slot, and what they leave for the KV cache.

An engine reserves all slots up front: bytes = slots · (rank-padded factors of every linear with buffers, its embedding
and head where they have slots). They come out of the KV cache one for one (vLLM 0.33, `vllm/lora/layers`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import networkx as nx
import numpy as np

from graphsim.deployment.allocator import allocated_bytes
from graphsim.deployment.arguments import deployed
from graphsim.deployment.deployment import Deployment, EngineRef, HardwareRef, ModelRef
from graphsim.deployment.memory import adapter_bytes, weight_bytes
from graphsim.deployment.parallelism import Parallelism
from graphsim.errors import ConfigError, InfeasibleError
from graphsim.graph import walk
from graphsim.lora.config import LoraConfig
from graphsim.lora.profile import load_profile
from graphsim.models.phase import decode
from graphsim.ops import Repeat, Rope
from graphsim.ops.precision import Precision
from graphsim.units import Num, checked_number

if TYPE_CHECKING:
    import pandas as pd

DEFAULT_ENGINE = "vllm"


@dataclass(frozen=True, slots=True, kw_only=True)
class Footprint:
    """Bytes per device, of the fullest pipeline stage.

    loading_bytes: weights, the rotary table and all slots: what an engine reports as loaded
    slot_bytes: of one slot; kv_token_bytes: of one token in the KV cache
    kv_tokens: tokens that the rest of the engine's share of memory holds
    host_bytes: of the adapters that wait in the host's memory for this device, each whole and at its own rank
    """

    weights_bytes: Num
    slot_bytes: Num
    slots: Num
    loading_bytes: Num
    kv_token_bytes: Num
    kv_bytes: Num
    host_bytes: Num = 0.0

    @property
    def kv_tokens(self) -> Num:
        """Whole tokens of the KV cache; none where weights and slots leave no room."""
        return np.floor(np.maximum(self.kv_bytes, 0.0) / self.kv_token_bytes)

    @property
    def kv_tokens_per_slot(self) -> Num:
        """Tokens of the KV cache that each slot costs."""
        return self.slot_bytes / self.kv_token_bytes

    def concurrency(self, tokens: Num) -> Num:
        """Whole requests of so many tokens each, prompt and generated, whose cache has room at a time."""
        requests: Num = np.floor(self.kv_tokens / checked_number("tokens", tokens, 1, whole=False))
        return requests

    def concurrency_per_slot(self, tokens: Num) -> Num:
        """Requests of so many tokens each that every slot costs."""
        requests: Num = self.kv_tokens_per_slot / checked_number("tokens", tokens, 1, whole=False)
        return requests


def footprint(
    model: ModelRef | Deployment,
    hardware: HardwareRef | None = None,
    lora: LoraConfig | None = None,
    *,
    engine: EngineRef | None = None,
    parallelism: Parallelism | None = None,
    precision: str | Precision | None = None,
    host_adapters: Num = 0,
) -> Footprint:
    """Weights, slots and what is left for the KV cache under an engine; `lora.max_loras` slots of `max_lora_rank`.

    engine: vllm by default; host_adapters: adapters kept in the host's memory, from which slots are filled (vLLM's
        --max-cpu-loras)
    Raises ConfigError as `simulate` does.
    """
    deployment = deployed(
        model, hardware, lora=lora, engine=engine, parallelism=parallelism, precision=precision,
        default_engine=DEFAULT_ENGINE,
    )  # fmt: skip
    return footprint_of(deployment, host_adapters)


def footprint_of(deployment: Deployment, host_adapters: Num = 0) -> Footprint:
    """Weights, slots and what is left for the KV cache of a deployment."""
    profile = deployment.engine or load_profile(DEFAULT_ENGINE)
    slots = 0.0 if deployment.adapter is None else _slots(deployment.adapter)
    stages = [_stage(deployment, i, slots) for i in range(deployment.parallelism.pp)]
    tables = _rotary_bytes(deployment) if profile.rotary_table else 0.0
    workspace = profile.workspace_bytes if deployment.adapter is None else profile.lora_workspace_bytes
    room = profile.memory_share * deployment.device.memory_bytes - workspace
    weights, slot, token, all_slots = stages[0]
    for other in stages[1:]:
        fuller = other[0] + other[3] > weights + all_slots
        pairs = zip(other, (weights, slot, token, all_slots), strict=True)
        weights, slot, token, all_slots = (np.where(fuller, a, b)[()] for a, b in pairs)
    loading = weights + tables + all_slots
    return Footprint(
        weights_bytes=weights, slot_bytes=slot, slots=slots, loading_bytes=loading, kv_token_bytes=token,
        kv_bytes=room - loading, host_bytes=_host_bytes(deployment, host_adapters),
    )  # fmt: skip


def _host_bytes(deployment: Deployment, adapters: Num) -> Num:
    """Adapters as their files hold them, for each device's worker (vLLM 0.33, `vllm/lora/worker_manager.py`)."""
    adapters = checked_number("host_adapters", adapters, 0)
    if deployment.adapter is None:
        return 0.0
    whole = replace(deployment, engine=None, parallelism=Parallelism())
    graphs = whole.stages(decode(1.0, 1.0))
    return adapters * sum((adapter_bytes(op) * n for graph in graphs for _, op, n in walk(graph)), start=0.0)


def _slots(lora: LoraConfig) -> Num:
    return np.maximum(lora.max_loras, np.ceil(lora.active_adapters)) if lora.strategy == "dynamic" else 0.0


def _stage(deployment: Deployment, number: int, slots: Num) -> tuple[Num, Num, Num, Num]:
    """Bytes of one stage's weights, of a slot, of a token in the cache, and of all slots."""
    here, further = (deployment.stored.stages(decode(1.0, context))[number] for context in (1024.0, 2048.0))
    weights = sum((weight_bytes(op) * n for _, op, n in walk(here)), start=0.0)
    slot = sum((adapter_bytes(op) * n for _, op, n in walk(here)), start=0.0)
    state = [sum((op.state_bytes * n for _, op, n in walk(graph)), start=0.0) for graph in (here, further)]
    token = (state[1] - state[0]) / 1024.0
    if not np.all(token > 0):
        raise InfeasibleError(f"model '{deployment.model.name}' keeps no KV cache that grows with the context")
    return weights, slot, token, _reserved(here, slots) if np.ndim(slots) == np.ndim(slot) == 0 else slots * slot


def _reserved(graph: nx.DiGraph, slots: Num) -> float:
    """What the allocator makes of one tensor per buffer, all slots together, layer by layer."""
    return allocated_bytes(_buffers(graph, float(slots)))


def _buffers(graph: nx.DiGraph, slots: float) -> Iterator[float]:
    for _, op in graph.nodes(data="op"):
        if isinstance(op, Repeat):
            body = list(_buffers(op.body, slots))
            for _ in range(op.times):
                yield from body
        elif op.buffers:
            element = float(op.weight_storage_bytes) / max(float(op.parameters), 1.0)
            yield from (slots * float(elems) * element for elems in op.buffers)


def _rotary_bytes(deployment: Deployment) -> Num:
    """cos and sin of all positions, half a head's width each, in the activations' format; one table for all layers."""
    ropes = [op for _, op, _ in walk(deployment.stages(decode(1.0, 1.0))[0]) if isinstance(op, Rope)]
    if not ropes or not deployment.model.max_positions:
        return 0.0
    width = max(float(op.head_dim) for op in ropes)
    return deployment.model.max_positions * width * deployment.precision.activations.bytes


def adapters_that_fit(
    model: ModelRef | Deployment,
    hardware: HardwareRef | None = None,
    kv_tokens: Num | None = None,
    lora: LoraConfig | None = None,
    *,
    engine: EngineRef | None = None,
    parallelism: Parallelism | None = None,
    precision: str | Precision | None = None,
) -> Num:
    """The most slots that still leave room for `kv_tokens` tokens of KV cache; 0 where there is room for none.

    lora: rank and targets (max_lora_rank, where the engine pads); by default rank 16 on attention and MLP
    Raises InfeasibleError where the model alone leaves less than that.
    """
    kv_tokens = checked_number("kv_tokens", kv_tokens, 0.0, 1e12, whole=False)
    deployment = deployed(
        model, hardware, lora=lora, engine=engine, parallelism=parallelism, precision=precision,
        default_engine=DEFAULT_ENGINE,
    )  # fmt: skip
    adapter = replace(deployment.lora or LoraConfig(), max_loras=1, active_adapters=1)
    one = footprint_of(replace(deployment, lora=adapter))
    if np.any(one.slot_bytes <= 0):
        raise ConfigError("adapters_that_fit: an adapter of rank 0 takes no memory; give a rank of at least 1")
    room = one.kv_bytes + one.slot_bytes - kv_tokens * one.kv_token_bytes
    if not np.any(room >= 0):
        most = np.max(np.floor((one.kv_bytes + one.slot_bytes) / one.kv_token_bytes))
        raise InfeasibleError(
            f"kv_tokens = {np.min(kv_tokens):,.0f} do not fit beside '{deployment.model.name}' on "
            f"'{deployment.device.name}' even without adapters; at most {max(most, 0):,.0f} do"
        )
    return np.floor(np.maximum(room, 0.0) / one.slot_bytes * (1.0 + 1e-12))[()]


def kv_tokens_left(
    model: ModelRef | Deployment,
    hardware: HardwareRef | None = None,
    lora: LoraConfig | None = None,
    *,
    engine: EngineRef | None = None,
    parallelism: Parallelism | None = None,
    precision: str | Precision | None = None,
) -> Num:
    """Tokens of KV cache that weights and `lora.max_loras` slots leave: the inverse of `adapters_that_fit`."""
    return footprint(model, hardware, lora, engine=engine, parallelism=parallelism, precision=precision).kv_tokens


def adapter_footprint(
    model: ModelRef | Deployment,
    lora: LoraConfig | None = None,
    *,
    engine: EngineRef | None = None,
    parallelism: Parallelism | None = None,
) -> pd.DataFrame:
    """One row per kind of module and rank that holds adapter weights: layers, parameters and bytes of one adapter.

    lora: by default the deployment's, or the model's own; engine: whose buffers to show, by default `reference`: the
        adapter's own factors
    """
    import pandas as pd

    deployment = deployed(model, lora=lora, engine=engine, parallelism=parallelism)
    adapter = replace(deployment.lora or LoraConfig(), strategy="dynamic")
    deployment = replace(deployment, lora=adapter)
    rows: dict[tuple[str, str, float], dict[str, float]] = {}
    for graph in deployment.stored.stages(decode(1.0, 1.0)):
        for _, op, times in walk(graph):
            if adapter_bytes(op):
                module, part = op.serves
                key = module, part.removeprefix("lora_"), float(op.adapter_rank)
                row = rows.setdefault(key, {"layers": 0.0, "parameters": 0.0, "bytes": 0.0})
                row["layers"] += times
                row["parameters"] += float(op.parameters) * times
                row["bytes"] += float(adapter_bytes(op)) * times
    table = [{"module": module, "factor": part, "rank": rank, **row} for (module, part, rank), row in rows.items()]
    return pd.DataFrame(table, columns=["module", "factor", "rank", "layers", "parameters", "bytes"])
