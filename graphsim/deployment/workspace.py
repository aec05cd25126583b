"""Memory that an engine keeps free of weights, slots and KV cache: for its profiled step, and its libraries.

vLLM runs a step of as many tokens and sequences as it will ever run, samples from all sequences, and keeps the peak of
that (vLLM 0.33, `vllm/v1/worker/gpu_worker.py`, determine_available_memory). The peak is mostly the sampler's: it works
on logits of every sequence over the whole vocabulary, in several formats.
"""

from __future__ import annotations

from dataclasses import dataclass

import networkx as nx
import numpy as np

from graphsim.deployment.activations import peak_activation_bytes
from graphsim.deployment.deployment import Deployment
from graphsim.deployment.parallelism import device_count
from graphsim.graph import walk
from graphsim.models.phase import Phase, prefill
from graphsim.ops import Rope
from graphsim.units import Num


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Workspace:
    """Bytes of a device that an engine keeps free of weights, slots and KV cache.

    activations_bytes: peak of the profiled step, with its sampler; 0 where the engine profiles none
    overhead_bytes: libraries, groups, captured graphs, the rotary table, and the unused rest of a reserve
    """

    activations_bytes: Num
    overhead_bytes: Num

    @property
    def total_bytes(self) -> Num:
        """Both."""
        return self.activations_bytes + self.overhead_bytes


def profiles(deployment: Deployment) -> bool:
    """Whether the engine cuts prompts into chunks, and profiles a step of the largest."""
    return deployment.engine_memory.chunk_tokens > 0


def taken_bytes(deployment: Deployment) -> Num:
    """The memory that the engine takes: a share of what the driver offers, or of the datasheet's if it does not
    profile.
    """
    device = deployment.device
    return deployment.engine_memory.share * (device.usable_bytes if profiles(deployment) else device.memory_bytes)


def step_limits(deployment: Deployment) -> tuple[Num, Num]:
    """The most tokens, and the most sequences, of a step; zeros where prompts are not cut into chunks."""
    memory, large = deployment.engine_memory, _is_large(deployment)
    tokens = np.where(large > 0, memory.large_chunk_tokens, memory.chunk_tokens)[()]
    return tokens, np.where(large > 0, memory.large_sequences, memory.sequences)[()]


def _is_large(deployment: Deployment) -> Num:
    """Whether the engine has its limits of large devices for this one: 1 or 0."""
    memory, device = deployment.engine_memory, deployment.device
    if not memory.large_device_bytes or (memory.small_device and memory.small_device in device.name.lower()):
        return 0.0
    return np.greater_equal(device.memory_bytes, memory.large_device_bytes) * 1.0


def profiled_step(deployment: Deployment) -> Phase:
    """The step that an engine profiles: all its tokens, distributed over all its sequences."""
    tokens, sequences = step_limits(deployment)
    return prefill(sequences, tokens / sequences)


def workspace_of(deployment: Deployment, graph: nx.DiGraph, step: nx.DiGraph | None, *, last: bool) -> Workspace:
    """The workspace on a stage.

    graph: the stage's, of any step
    step: of `profiled_step`, None where the engine profiles none
    last: whether the stage samples
    """
    memory, degrees = deployment.engine_memory, deployment.parallelism
    forward: Num = 0.0 if step is None else peak_activation_bytes(step)
    peak = np.maximum(forward, _sampler_bytes(deployment)) if step is not None and last else forward
    replica = device_count(tp=degrees.tp, pp=degrees.pp, ep=degrees.ep, dp=1.0, cp=degrees.cp)
    several = np.where(np.greater(replica, 1.0), 1.0, 0.0)[()]
    overhead = memory.runtime_bytes + several * memory.group_bytes + memory.graph_bytes + memory.graph_steps * forward
    tables = rotary_bytes(deployment, graph) if memory.rotary_table else 0.0
    unused = np.maximum(_reserve_bytes(deployment) - peak, 0.0)
    return Workspace(activations_bytes=peak, overhead_bytes=overhead + tables + unused)


def _reserve_bytes(deployment: Deployment) -> Num:
    """Memory that the engine keeps free by a rule of thumb; 0 if it has none."""
    memory, degrees = deployment.engine_memory, deployment.parallelism
    tokens, sequences = step_limits(deployment)
    least = _is_large(deployment) * memory.least_reserve_bytes
    by_limits = tokens * memory.reserve_token_bytes + sequences * memory.reserve_sequence_bytes
    devices = degrees.tp * degrees.pp * memory.reserve_device_bytes
    return np.maximum(memory.reserve_bytes + by_limits + devices, least)


def _sampler_bytes(deployment: Deployment) -> Num:
    """Peak while tokens are sampled: hidden states of all rows, those that are sampled from, and the sampler's own."""
    tokens, sequences = step_limits(deployment)
    hidden = deployment.model.hidden_size * deployment.precision.activations.bytes
    memory, lora = deployment.engine_memory, deployment.adapter
    enabled = lora is not None and lora.strategy == "dynamic"
    each = memory.sampler_bytes + (memory.lora_sampler_bytes if enabled else 0.0)
    return (tokens + sequences) * hidden + sequences * deployment.model.vocab_size * each


def rotary_bytes(deployment: Deployment, graph: nx.DiGraph) -> Num:
    """cos and sin of all positions, half a head's width each, in the activations' format; one table for all layers."""
    ropes = [op for _, op, _ in walk(graph) if isinstance(op, Rope)]
    if not ropes or not deployment.model.max_positions:
        return 0.0
    width = max(float(op.head_dim) for op in ropes)
    return deployment.model.max_positions * width * deployment.precision.activations.bytes
