"""How an engine uses a device's memory: the `memory` group of its profile."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from graphsim.files.reading import Fields
from graphsim.lora.sources import place, read_flags, read_numbers

RUNTIME_BYTES = 2.0**30
"""Context, libraries and workspaces of a GPU runtime: the middle of the 0.5 to 1.5 GB reported for CUDA with cuBLAS."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineMemory:
    """How much of a device's memory an engine uses, and how much of that is not for weights, slots and KV cache.

    An engine with `chunk_tokens` runs a step of `chunk_tokens` tokens once at startup, and reserves the memory it took.

    share: share of the memory available to programs that the engine allocates
    cache_share: share of the memory left by weights, slots and a step that the KV cache gets
    chunk_tokens: most tokens of a step; 0 if prompts are not split into chunks
    sequences: most sequences of a step
    large_device_bytes: devices with at least this memory use `large_chunk_tokens` and `large_sequences` instead, except
        those whose names contain `small_device`; 0 if there is no such rule
    sampler_bytes: peak bytes of sampling per sequence and vocabulary entry, logits included
    lora_sampler_bytes: additional bytes of the same with adapters enabled
    runtime_bytes: bytes of libraries, and of the context if the engine counts it
    group_bytes: additional bytes with
        several devices
    graph_bytes: bytes reserved for captured graphs
    graph_steps: in addition, this multiple of a step's activations
        without its sampler
    reserve_bytes: bytes kept free of weights, slots and KV cache by a rule of thumb, independent of a step; in addition
        for each of `chunk_tokens` (reserve_token_bytes), of `sequences` (reserve_sequence_bytes) and of a replica's
        devices (reserve_device_bytes), and at least least_reserve_bytes on devices with the large limits
    block_tokens: tokens per block of the KV cache
    rotary_table: whether the rotary embedding's table of all positions is in memory
    sources: the source of each number; "inherited from NAME: …" for a number taken from another profile
    """

    share: float = 1.0
    cache_share: float = 1.0
    chunk_tokens: float = 0.0
    sequences: float = 0.0
    large_device_bytes: float = 0.0
    large_chunk_tokens: float = 0.0
    large_sequences: float = 0.0
    small_device: str = ""
    sampler_bytes: float = 0.0
    lora_sampler_bytes: float = 0.0
    runtime_bytes: float = RUNTIME_BYTES
    group_bytes: float = 0.0
    graph_bytes: float = 0.0
    graph_steps: float = 0.0
    reserve_bytes: float = 0.0
    reserve_token_bytes: float = 0.0
    reserve_sequence_bytes: float = 0.0
    reserve_device_bytes: float = 0.0
    least_reserve_bytes: float = 0.0
    block_tokens: float = 1.0
    rotary_table: bool = False
    sources: Mapping[str, str] = field(default_factory=dict, compare=False)


_NUMBERS = {
    "share": ("", 0.0, 1.0), "cache_share": ("", 0.01, 1.0), "chunk_tokens": ("", 0.0, 1e9),
    "sequences": ("", 0.0, 1e9),
    "large_device_bytes": ("bytes", 0.0, 1e15), "large_chunk_tokens": ("", 0.0, 1e9),
    "large_sequences": ("", 0.0, 1e9), "sampler_bytes": ("bytes", 0.0, 1e3), "runtime_bytes": ("bytes", 0.0, 1e13),
    "group_bytes": ("bytes", 0.0, 1e13), "graph_bytes": ("bytes", 0.0, 1e13), "graph_steps": ("", 0.0, 100.0),
    "reserve_bytes": ("bytes", 0.0, 1e13), "reserve_token_bytes": ("bytes", 0.0, 1e9),
    "reserve_sequence_bytes": ("bytes", 0.0, 1e10), "reserve_device_bytes": ("bytes", 0.0, 1e12),
    "least_reserve_bytes": ("bytes", 0.0, 1e13), "lora_sampler_bytes": ("bytes", 0.0, 1e3),
    "block_tokens": ("", 1.0, 1e6),
}  # fmt: skip


def read_memory(fields: Fields, base: EngineMemory, inherited: Mapping[str, str]) -> EngineMemory:
    """The `memory` group of a profile's file, based on that of its base; a number may be `{value: …, source: …}`.

    inherited: sources of the fields inherited from the base
    Problems are noted in `fields`: a number out of its bounds, or one limit of steps without the other.
    """
    found: dict[str, Any] = {}
    sources = dict(inherited)
    found |= read_numbers(fields, _NUMBERS, base, sources)
    at, name = place(fields, "small_device", sources)
    found["small_device"] = at.text(name, base.small_device)
    found |= read_flags(fields, ("rotary_table",), base, sources)
    memory = replace(base, **found, sources=sources)
    for tokens, sequences in (("chunk_tokens", "sequences"), ("large_chunk_tokens", "large_sequences")):
        if (found[tokens] > 0) != (found[sequences] > 0):
            fields.problems.append(f"memory.{tokens} and memory.{sequences} go together; give both or none")
    return memory
