"""Settings of engines by the names of their own flags, and their meaning in graphsim's terms.

vLLM: `vllm serve`, vLLM 0.33.0, vllm/engine/arg_utils.py. SGLang: `sglang.launch_server`, SGLang 0.5.14,
python/sglang/srt/server_args.py. TensorRT-LLM: TensorRT-LLM 1.2, tensorrt_llm/llmapi/llm_args.py, with the fields of
its nested configurations by their own names.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import inf
from types import MappingProxyType
from typing import Any

from graphsim.errors import ConfigError, choices_text
from graphsim.lora.scheduler import ADMISSIONS, EVICTIONS, POLICIES, SHORTAGES
from graphsim.serving.offloading import READS, WRITES
from graphsim.serving.rules import LOADS, ORDERS
from graphsim.units import bounds_text, checked_number, parse_quantity, short

Settings = dict[str, Any]
Check = Callable[[str, Any], Any]
MOST = 10**12


@dataclass(frozen=True, slots=True)
class Flag:
    """One flag.

    check: validates its value
    settings: the graphsim settings that it stands for
    """

    check: Check
    settings: Callable[[Any], Settings]


def whole(least: int = 1, most: int = MOST) -> Check:
    """A whole number within bounds."""
    return lambda name, value: checked_number(name, value, least, most, one=True)


def number(least: float, most: float) -> Check:
    """A number within bounds."""
    return lambda name, value: checked_number(name, value, least, most, whole=False, one=True)


def switch(name: str, value: Any) -> bool:
    """True or False."""
    if not isinstance(value, bool):
        raise ConfigError(f"{name} = {short(value)} is not allowed; expected True or False")
    return value


def word(*allowed: str) -> Check:
    """One of some words."""

    def check(name: str, value: Any) -> str:
        if value not in allowed:
            raise ConfigError(f"{name} = {short(value)} is not allowed; {choices_text(value, allowed)}")
        return str(value)

    return check


def wholes(least: int) -> Check:
    """Several whole numbers in order, or a single one."""

    def check(name: str, value: Any) -> tuple[int, ...]:
        listed = value if isinstance(value, list | tuple) else [value]
        return tuple(sorted({checked_number(name, one, least, MOST, one=True) for one in listed}))

    return check


def _weights(name: str, value: Any) -> tuple[float, float, float]:
    if not isinstance(value, list | tuple) or len(value) != 3:
        raise ConfigError(f"{name} = {short(value)} is not allowed; expected three numbers: frequency, recency, size")
    frequency, recency, size = (float(checked_number(name, one, 0, 1e9, whole=False, one=True)) for one in value)
    return frequency, recency, size


def _seconds(name: str, value: Any) -> float:
    return inf if value == inf else float(checked_number(name, value, 0, 1e9, whole=False, one=True))


def _length(name: str, value: Any) -> float:
    return inf if value == inf else float(checked_number(name, value, 1, MOST, one=True))


def quantity(kind: str, least: float) -> Check:
    """A size or a rate, as a number or a text with its unit."""

    def check(name: str, value: Any) -> float:
        try:
            number = inf if value == inf else parse_quantity(value, kind)
        except ConfigError as error:
            raise ConfigError(f"{name}: {error}") from None
        if not least <= number:
            raise ConfigError(
                f"{name} = {short(value)} is not allowed; expected a number {bounds_text(least, kind=kind)}"
            )
        return number

    return check


def _as(setting: str) -> Callable[[Any], Settings]:
    return lambda value: {setting: value}


def _unless(setting: str) -> Callable[[Any], Settings]:
    return lambda value: {setting: not value}


def _own(**checks: Check) -> dict[str, Flag]:
    return {name: Flag(check, _as(name)) for name, check in checks.items()}


OWN: Mapping[str, Flag] = MappingProxyType(
    _own(
        kv_tokens=whole(), kv_blocks=whole(), block_tokens=whole(most=10**6), memory_share=number(0.01, 1.0),
        max_model_len=_length, max_num_batched_tokens=whole(), max_num_seqs=whole(most=10**6),
        long_prefill_token_threshold=whole(0), order=word(*ORDERS), chunked=switch, admission=word(*ADMISSIONS),
        watermark=number(0.0, 0.99), shortage=word(*SHORTAGES), policy=word(*POLICIES), prefix_cache=switch,
        new_token_ratio=number(0.0, 1.0), ratio_decay=number(0.0, 1.0), least_ratio=number(0.0, 1.0),
        prefill_interval=whole(most=10**4), async_scheduling=switch, receive_steps=whole(most=10**4),
        wait_steps=whole(0, 10**4), wait_share=number(0.0, 1.0), captured_sizes=wholes(1), pads=switch,
        max_loras=whole(1, 10**6), max_cpu_loras=whole(1, 10**9), max_lora_rank=whole(1, 4096), skips=switch,
        skip_s=number(0.0, 0.001),
        loads=word(*LOADS), eviction=word(*EVICTIONS), weights=_weights, prefetch=whole(0, 10**6), pinned=wholes(0),
        preloaded=switch, base_takes_place=switch, drain_after_s=_seconds,
        kv_tiers=switch, kv_host=quantity("bytes", 0.0), kv_host_rank=quantity("bytes", 0.0),
        kv_host_ratio=number(0.0, MOST), kv_disk=quantity("bytes", 0.0), kv_host_rate=quantity("bytes/s", 1.0),
        kv_disk_rate=quantity("bytes/s", 1.0), kv_writes=word(*WRITES), tier_reads=word(*READS),
    )
)  # fmt: skip
"""Settings of every engine: fields of Rules and AdapterRules, and kv_tokens, memory_share (of the device, or of
what is free for the cache, by the engine), max_lora_rank, captured_sizes and pads. Of tiers of the KV cache
(`graphsim.serving.tiers`): kv_host, kv_disk (bytes of all devices together), kv_host_rank (of each device),
kv_host_ratio (over the device's cache), kv_tiers (whether there is one of a default size), kv_host_rate, kv_disk_rate
(of each device's host link, and of the disk), kv_writes (whether tiers have copies of what is on the device, `through`,
or what has left it alone, `back`)."""

_VLLM = {
    "gpu_memory_utilization": Flag(number(0.01, 1.0), _as("memory_share")),
    "block_size": Flag(whole(most=10**6), _as("block_tokens")),
    "num_gpu_blocks_override": Flag(whole(), _as("kv_blocks")),
    "enable_prefix_caching": Flag(switch, _as("prefix_cache")),
    "no_enable_prefix_caching": Flag(switch, _unless("prefix_cache")),
    "enable_chunked_prefill": Flag(switch, _as("chunked")),
    "no_enable_chunked_prefill": Flag(switch, _unless("chunked")),
    "no_async_scheduling": Flag(switch, _unless("async_scheduling")),
    "scheduling_policy": Flag(word("fcfs", "priority"), _as("policy")),
    "scheduler_reserve_full_isl": Flag(switch, lambda on: {"admission": "whole_prompt" if on else "blocks"}),
    "prefill_schedule_interval": Flag(whole(most=10**4), _as("prefill_interval")),
    "cudagraph_capture_sizes": Flag(wholes(1), _as("captured_sizes")),
    "max_cudagraph_capture_size": Flag(whole(), _as("largest_captured")),
    "kv_offloading_size": Flag(number(0.0, MOST), lambda gib: {"kv_host": gib * 2.0**30}),
    "kv_offloading_backend": Flag(word("native", "lmcache"), lambda _backend: {}),
}
_SGLANG = {
    "max_running_requests": Flag(whole(most=10**6), _as("max_num_seqs")),
    "chunked_prefill_size": Flag(
        whole(-1), lambda size: {"max_num_batched_tokens": size} if size > 0 else {"chunked": False}
    ),
    "max_prefill_tokens": Flag(whole(), _as("most_prompt_tokens")),
    "max_total_tokens": Flag(whole(), _as("kv_tokens")),
    "context_length": Flag(_length, _as("max_model_len")),
    "mem_fraction_static": Flag(number(0.01, 1.0), _as("memory_share")),
    "page_size": Flag(whole(most=10**6), _as("block_tokens")),
    "disable_radix_cache": Flag(switch, _unless("prefix_cache")),
    "schedule_policy": Flag(word("fcfs", "lpm", "lof"), _as("policy")),
    "enable_priority_scheduling": Flag(switch, lambda on: {"policy": "priority"} if on else {}),
    "schedule_conservativeness": Flag(number(0.0, 100.0), _as("conservativeness")),
    "enable_mixed_chunk": Flag(switch, lambda on: {"order": "mixed" if on else "prefill_first"}),
    "disable_overlap_schedule": Flag(switch, lambda off: {"async_scheduling": False} if off else {}),
    "scheduler_recv_interval": Flag(whole(most=10**4), _as("receive_steps")),
    "max_loras_per_batch": Flag(whole(1, 10**6), _as("max_loras")),
    "max_loaded_loras": Flag(whole(1, 10**9), _as("max_cpu_loras")),
    "lora_eviction_policy": Flag(word("lru", "fifo"), _as("eviction")),
    "enable_lora_overlap_loading": Flag(switch, lambda on: {"loads": "overlapped" if on else "stall"}),
    "lora_drain_wait_threshold": Flag(_seconds, lambda wait: {"drain_after_s": wait or inf}),
    "cuda_graph_bs": Flag(wholes(1), _as("captured_sizes")),
    "cuda_graph_max_bs": Flag(whole(), _as("largest_captured")),
    "disable_cuda_graph_padding": Flag(switch, _unless("pads")),
    "enable_hierarchical_cache": Flag(switch, lambda on: {"kv_tiers": True} if on else {}),
    "hicache_ratio": Flag(number(0.0, MOST), _as("kv_host_ratio")),
    "hicache_size": Flag(number(0.0, MOST), lambda gb: {"kv_host_rank": gb * 1e9}),
    "hicache_write_policy": Flag(
        word("write_through", "write_through_selective", "write_back"),
        lambda policy: {"kv_writes": "back" if policy == "write_back" else "through"},
    ),
}
_TRTLLM = {
    "max_batch_size": Flag(whole(most=10**6), _as("max_num_seqs")),
    "max_num_tokens": Flag(whole(), _as("max_num_batched_tokens")),
    "max_seq_len": Flag(_length, _as("max_model_len")),
    "max_tokens": Flag(whole(), _as("kv_tokens")),
    "tokens_per_block": Flag(whole(most=10**6), _as("block_tokens")),
    "free_gpu_memory_fraction": Flag(number(0.01, 1.0), _as("memory_share")),
    "enable_block_reuse": Flag(switch, _as("prefix_cache")),
    "enable_chunked_prefill": Flag(switch, _as("chunked")),
    "capacity_scheduler_policy": Flag(
        word("GUARANTEED_NO_EVICT", "MAX_UTILIZATION"),
        lambda policy: {"admission": "no_evict" if policy == "GUARANTEED_NO_EVICT" else "blocks", "shortage": "pause"},
    ),
    "batch_wait_timeout_iters": Flag(whole(0, 10**4), _as("wait_steps")),
    "batch_wait_max_tokens_ratio": Flag(number(0.0, 1.0), _as("wait_share")),
    "disable_overlap_scheduler": Flag(switch, lambda off: {"async_scheduling": False} if off else {}),
    "cuda_graph_batch_sizes": Flag(wholes(1), _as("captured_sizes")),
    "cuda_graph_max_batch_size": Flag(whole(), _as("largest_captured")),
    "enable_padding": Flag(switch, _as("pads")),
    "host_cache_size": Flag(quantity("bytes", 0.0), _as("kv_host_rank")),
}
OF_ENGINES: Mapping[str, Mapping[str, Flag]] = MappingProxyType(
    {"": {}, "vllm": _VLLM, "sglang": _SGLANG, "trtllm": _TRTLLM}
)
"""Flags by engine, as named in `flags` of an engine's `scheduler`."""


ELSEWHERE: Mapping[str, str] = MappingProxyType(
    {
        **dict.fromkeys(("tensor_parallel_size", "tp_size", "tp"), "gs.Parallelism(tp=…)"),
        **dict.fromkeys(("pipeline_parallel_size", "pp_size", "pp"), "gs.Parallelism(pp=…)"),
        **dict.fromkeys(
            ("prefill_context_parallel_size", "attn_cp_size", "attention_context_parallel_size"), "gs.Parallelism(cp=…)"
        ),
        **dict.fromkeys(("data_parallel_size", "dp_size"), "gs.Parallelism(dp=…) or replicas=…"),
        **dict.fromkeys(
            ("enable_expert_parallel", "ep_size", "expert_parallel_size"), "parallelism=gs.Parallelism(ep=…)"
        ),
        **dict.fromkeys(("quantization", "dtype", "kv_cache_dtype"), "precision=…"),
        **dict.fromkeys(("enable_lora", "lora_modules", "lora_paths", "fully_sharded_loras"), "lora=gs.LoraConfig(…)"),
    }
)
"""Flags of engines that are not limits, and their equivalents here."""


def all_names() -> set[str]:
    """Every name that is known for some engine."""
    return set(OWN).union(*OF_ENGINES.values())
