"""Memory of adapters on a device, by module and by slot, and the memory that remains for the KV cache.

An engine reserves all slots at start-up: bytes = slots · (rank-padded factors of every linear layer with buffers, and
of embedding and head if they have slots). The KV cache shrinks by the same amount (vLLM 0.33, `vllm/lora/layers`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import reduce
from typing import TYPE_CHECKING, Any

import numpy as np

from graphsim.analysis.slot_buffers import reserved_bytes
from graphsim.brief import figures_text
from graphsim.deployment.arguments import deployed
from graphsim.deployment.cache import RequestCache
from graphsim.deployment.deployment import DEFAULT_ENGINE, Deployment, EngineRef, HardwareRef, ModelRef
from graphsim.deployment.memory import Stage, adapter_bytes, stages_of, weight_bytes
from graphsim.deployment.parallelism import Parallelism
from graphsim.deployment.scenarios import scenarios_in, take
from graphsim.deployment.workspace import rotary_bytes, taken_bytes
from graphsim.errors import ConfigError, InfeasibleError
from graphsim.graph import walk
from graphsim.lora.config import LoraConfig
from graphsim.ops.precision import Precision
from graphsim.symbolic.questions import may_be_nonzero
from graphsim.symbolic.substitute import with_fields
from graphsim.units import Num, amount_text, checked_number

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """Memory of a pipeline stage available for requests, and the memory of each request, in bytes per device."""

    slot_bytes: Num
    kv_bytes: Num
    cache: RequestCache

    @property
    def kv_tokens(self) -> Num:
        """Number of tokens that fit, in whole blocks; inf if nothing grows with the context."""
        block, each = self.cache.block_tokens, self.cache.token_bytes
        blocks = np.floor(np.maximum(self.kv_bytes, 0.0) / (block * np.maximum(each, LEAST_BYTES)))
        return np.where(np.greater(each, 0.0), blocks * block, np.inf)[()]

    def requests(self, tokens: Num) -> Num:
        """Number of whole requests of this many tokens each that fit; inf if they keep nothing."""
        each = self.cache.bytes(tokens)
        fitting = np.floor(np.maximum(self.kv_bytes, 0.0) / np.maximum(each, LEAST_BYTES) * (1.0 + 1e-12))
        return np.where(np.greater(each, 0.0), fitting, np.inf)[()]


LEAST_BYTES = 1e-9
"""Lower bound of divisors, to avoid a division by zero."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Footprint:
    """Bytes per device of the fullest pipeline stage.

    loading_bytes: weights, the rotary table and all slots: what an engine reports as loaded
    slot_bytes: bytes of one slot
    workspace_bytes: memory that the engine reserves in addition to these and the KV cache (see
        `graphsim.deployment.workspace`)
    kv_bytes: remainder of the engine's share of memory: the KV cache and recurrent state
    rooms: memory available for requests in each stage
    engine: the engine whose rules apply
    host_bytes: adapters kept in host memory for this device, each complete and at its own rank
    """

    weights_bytes: Num
    slot_bytes: Num
    slots: Num
    loading_bytes: Num
    workspace_bytes: Num
    kv_bytes: Num
    rooms: tuple[Room, ...]
    host_bytes: Num = 0.0
    engine: str = ""

    def __repr__(self) -> str:
        names = [own.name for own in fields(self) if own.name not in ("rooms", "engine")]
        return figures_text("Footprint", {name: getattr(self, name) for name in names}, of=self.engine)

    @property
    def kv_token_bytes(self) -> Num:
        """Bytes of one token in the caches of all layers, including those that keep only a window of tokens.

        "GPU KV cache size" counts tokens this way (vLLM up to 0.18, `v1/core/kv_cache_utils.py`): layers of all kinds
        take their blocks from one pool. Requests longer than a window take less (`request_bytes`), and recurrent state
        is additional. It is the value of the stage where it is largest.
        """
        return reduce(np.maximum, [room.cache.token_bytes for room in self.rooms])

    @property
    def kv_tokens(self) -> Num:
        """Number of tokens that the KV cache holds, in whole blocks; 0 if weights and slots leave no room."""
        return reduce(np.minimum, [room.kv_tokens for room in self.rooms])

    @property
    def kv_tokens_per_slot(self) -> Num:
        """Number of tokens by which each slot reduces the KV cache."""
        return self.slot_bytes / self.kv_token_bytes

    def request_bytes(self, tokens: Num) -> Num:
        """Cache and state of a request, in bytes: whole blocks, up to the window, and recurrent state.

        tokens: tokens of the request, prompt and generated
        """
        tokens = checked_number("tokens", tokens, 1, whole=False)
        return reduce(np.maximum, [room.cache.bytes(tokens) for room in self.rooms])

    def concurrency(self, tokens: Num) -> Num:
        """Number of requests of this many tokens each, prompt and generated, that fit at the same time."""
        tokens = checked_number("tokens", tokens, 1, whole=False)
        return reduce(np.minimum, [room.requests(tokens) for room in self.rooms])

    def concurrency_per_slot(self, tokens: Num) -> Num:
        """Number of requests of `tokens` tokens each by which every slot reduces the concurrency."""
        requests: Num = self.slot_bytes / self.request_bytes(tokens)
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
    """Bytes of weights and slots, and the remainder for the KV cache, for `lora.max_loras` slots of `max_lora_rank`.

    engine: the engine, vllm by default
    host_adapters: number of adapters kept in host memory, from which slots are filled (vLLM's --max-cpu-loras)
    Raises ConfigError as `simulate` does.
    """
    deployment = deployed(
        model, hardware, lora=lora, engine=engine, parallelism=parallelism, precision=precision,
        default_engine=DEFAULT_ENGINE,
    )  # fmt: skip
    return footprint_of(deployment, host_adapters)


def footprint_of(deployment: Deployment, host_adapters: Num = 0) -> Footprint:
    """The footprint of a deployment."""
    if deployment.model.source_encoder is not None:
        raise ConfigError(
            f"model '{deployment.model.name}' is an encoder-decoder, whose caches hold tokens of two kinds, so the "
            "room left is not one number of tokens; use simulate for the memory of a batch"
        )
    deployment = deployment.under(DEFAULT_ENGINE)
    slots = 0.0 if deployment.adapter is None else _slots(deployment.adapter)
    if not may_be_nonzero(slots):
        deployment = with_fields(deployment, {"lora": None})
    found = [_of_stage(stage, deployment, slots) for stage in stages_of(deployment.stored)]
    fullest = reduce(_fuller, found)
    rooms = tuple(room for stage in found for room in stage.rooms)
    host_bytes = _host_bytes(deployment, host_adapters)
    return replace(fullest, rooms=rooms, host_bytes=host_bytes, engine=deployment.engine_name)


def _of_stage(stage: Stage, deployment: Deployment, slots: Num) -> Footprint:
    """The footprint of one stage."""
    weights = sum((weight_bytes(op) * n for _, op, n in walk(stage.graph)), start=0.0)
    slot = sum((adapter_bytes(op) * n for _, op, n in walk(stage.graph)), start=0.0)
    reserved = reserved_bytes(stage.graph, slots, np.shape(slots * slot))
    tables = rotary_bytes(deployment, stage.graph) if deployment.engine_memory.rotary_table else 0.0
    loading, workspace = weights + tables + reserved, stage.workspace.total_bytes - tables
    free = taken_bytes(deployment) - loading - workspace
    unused = np.maximum(free, 0.0) * (1.0 - deployment.engine_memory.cache_share)
    kv_bytes, workspace = free - unused, workspace + unused
    return Footprint(
        weights_bytes=weights, slot_bytes=slot, slots=slots, loading_bytes=loading, workspace_bytes=workspace,
        kv_bytes=kv_bytes, rooms=(Room(slot_bytes=slot, kv_bytes=kv_bytes, cache=stage.cache),),
    )  # fmt: skip


def _fuller(one: Footprint, other: Footprint) -> Footprint:
    """The stage that leaves less memory, scenario by scenario."""
    fuller = np.less(other.kv_bytes, one.kv_bytes)
    names = [field.name for field in fields(Footprint) if field.name not in ("rooms", "host_bytes", "engine")]
    return replace(one, **{name: np.where(fuller, getattr(other, name), getattr(one, name))[()] for name in names})


def _host_bytes(deployment: Deployment, adapters: Num) -> Num:
    """Bytes of unpadded adapters in host memory, per device's worker (vLLM 0.33, `vllm/lora/worker_manager.py`)."""
    adapters = checked_number("host_adapters", adapters, 0)
    if deployment.adapter is None:
        return 0.0
    whole = replace(deployment, engine=None, parallelism=Parallelism())
    graphs = whole.held()
    return adapters * sum((adapter_bytes(op) * n for graph in graphs for _, op, n in walk(graph)), start=0.0)


def _slots(lora: LoraConfig) -> Num:
    return np.ceil(lora.slots) if lora.strategy == "dynamic" else 0.0


def adapters_that_fit(
    model: ModelRef | Deployment,
    hardware: HardwareRef | None = None,
    kv_tokens: Num | None = None,
    lora: LoraConfig | None = None,
    *,
    requests: Num | None = None,
    engine: EngineRef | None = None,
    parallelism: Parallelism | None = None,
    precision: str | Precision | None = None,
) -> Num:
    """The largest number of slots that still leave room for `kv_tokens` tokens of KV cache; 0 if none do.

    lora: rank and targets (max_lora_rank if the engine pads ranks); by default rank 16 on attention and MLP
    requests: number of requests that hold these tokens, in equal parts: sliding windows, whole blocks and recurrent
        state then count; without it, every layer keeps every token
    Raises InfeasibleError if the model alone leaves less than that.
    """
    kv_tokens = checked_number("kv_tokens", kv_tokens, 0.0, 1e12, whole=False)
    deployment = deployed(
        model, hardware, lora=lora, engine=engine, parallelism=parallelism, precision=precision,
        default_engine=DEFAULT_ENGINE,
    )  # fmt: skip
    if requests is not None:
        requests = checked_number("requests", requests, 1)
    held = scenarios_in(deployment, kv_tokens, requests)
    if held is None:
        return _slots_beside(deployment, float(kv_tokens), None if requests is None else float(requests))
    found: list[float] = []
    refused: list[InfeasibleError] = []
    for scenario in range(held):
        try:
            single: Any = take((deployment, kv_tokens, requests), scenario)
            found.append(_slots_beside(*single))
        except InfeasibleError as error:
            refused.append(error)
            found.append(0.0)
    if len(refused) == held:
        raise refused[0]
    return np.array(found)


def _slots_beside(deployment: Deployment, kv_tokens: float, requests: float | None) -> float:
    """The answer of `adapters_that_fit` for a single scenario."""
    adapter = replace(deployment.lora or LoraConfig(), max_loras=1, active_adapters=1)
    one = footprint_of(replace(deployment, lora=adapter))
    if one.slot_bytes <= 0:
        raise ConfigError("adapters_that_fit: an adapter of rank 0 takes no memory; give a rank of at least 1")
    left = [float(_left_for_slots(room, kv_tokens, requests)) for room in one.rooms]
    if min(left) < 0:
        most = min(replace(room, kv_bytes=room.kv_bytes + room.slot_bytes).kv_tokens for room in one.rooms)
        holding = "" if requests is None else f" in {requests:,.0f} requests"
        raise InfeasibleError(
            f"kv_tokens = {amount_text(kv_tokens)}{holding} do not fit beside '{deployment.model.name}' on "
            f"'{deployment.device.name}' even without adapters; at most {amount_text(most)} do"
        )
    rooms = zip(one.rooms, left, strict=True)
    slots = min(math.floor(rest / max(float(room.slot_bytes), LEAST_BYTES) * (1.0 + 1e-12)) for room, rest in rooms)
    return _in_whole_blocks(replace(deployment, lora=adapter), float(slots), left)


def _in_whole_blocks(deployment: Deployment, most: float, left: Sequence[float]) -> float:
    """The largest number of slots, up to `most`, that fit in all stages, given the allocator's rounding of tensors.

    left: bytes available for slots in each stage, net of the rounding of one slot
    """
    graphs = [stage.graph for stage in stages_of(deployment.stored)]
    slot = [sum((adapter_bytes(op) * n for _, op, n in walk(graph)), start=0.0) for graph in graphs]
    room = [rest + reserved_bytes(graph, 1.0) - each for rest, graph, each in zip(left, graphs, slot, strict=True)]

    def fits(slots: float) -> bool:
        return all(reserved_bytes(graph, slots) <= rest for graph, rest in zip(graphs, room, strict=True))

    low, high, step = most, most + 1.0, 1.0
    while low > 0.0 and not fits(low):
        low, high, step = max(low - step, 0.0), low, 2.0 * step
    while high - low > 1.0:
        middle = (low + high) // 2.0
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def _left_for_slots(room: Room, kv_tokens: Num, requests: Num | None) -> Num:
    """Memory of a stage without slots that the KV cache of these tokens leaves free.

    requests: number of requests that hold the tokens; if None, every layer keeps every token
    """
    if requests is None:
        block = room.cache.block_tokens
        held: Num = np.ceil(kv_tokens / block) * block * room.cache.token_bytes
    else:
        held = requests * room.cache.bytes(kv_tokens / requests)
    return room.kv_bytes + room.slot_bytes - held


def kv_tokens_left(
    model: ModelRef | Deployment,
    hardware: HardwareRef | None = None,
    lora: LoraConfig | None = None,
    *,
    engine: EngineRef | None = None,
    parallelism: Parallelism | None = None,
    precision: str | Precision | None = None,
) -> Num:
    """Tokens of KV cache that fit with the weights and `lora.max_loras` slots: the inverse of `adapters_that_fit`."""
    return footprint(model, hardware, lora, engine=engine, parallelism=parallelism, precision=precision).kv_tokens


def adapter_footprint(
    model: ModelRef | Deployment,
    lora: LoraConfig | None = None,
    *,
    engine: EngineRef | None = None,
    parallelism: Parallelism | None = None,
) -> pd.DataFrame:
    """Layers, parameters and bytes of one adapter; one row per kind of module and rank that holds adapter weights.

    lora: the adapter, by default the deployment's, or the model's own
    engine: the engine whose buffers are counted; by default `reference`, which counts the adapter's own factors
    """
    import pandas as pd

    deployment = deployed(model, lora=lora, engine=engine, parallelism=parallelism)
    adapter = replace(deployment.lora or LoraConfig(), strategy="dynamic")
    deployment = replace(deployment, lora=adapter)
    rows: dict[tuple[str, str, float], dict[str, float]] = {}
    for graph in deployment.stored.held():
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
