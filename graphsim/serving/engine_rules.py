"""From a deployment and an engine's settings to the rules of its scheduler.

Slots of adapters and the step that an engine profiles take their memory first; what is left is the cache
(`graphsim.analysis.slots`).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import fields, replace
from functools import partial
from math import inf

import numpy as np

from graphsim.analysis.slots import Footprint, footprint_of
from graphsim.deployment.deployment import DEFAULT_ENGINE, Deployment
from graphsim.deployment.workspace import step_limits
from graphsim.errors import ConfigError, InfeasibleError
from graphsim.lora.config import LoraConfig
from graphsim.lora.memory import EngineMemory
from graphsim.lora.profile import EngineProfile
from graphsim.serving.engine_flags import Settings
from graphsim.serving.engine_limits import EngineLimits
from graphsim.serving.rules import AdapterRules, Rules
from graphsim.serving.tiers import tiers_of
from graphsim.symbolic.memo import Memo
from graphsim.units import amount_text, scaled

WITHOUT_END = 2**50
"""Stands for an unlimited count."""
MERGED_SLOTS = 2
"""Places for adapters where one is merged into the weights: its own and the next one's. No engine here merges while
serving; such a server is assumed to keep all adapters in host memory unless `max_cpu_loras` says otherwise.
"""
NO_LIMITS = EngineLimits()
_engines: Memo[EngineProfile] = Memo(most=64)


def served(deployment: Deployment, limits: EngineLimits = NO_LIMITS, ranks: Sequence[int] = ()) -> Deployment:
    """The deployment as a server with these settings runs it: with its slots, its memory and its profiled step.

    ranks: of the adapters that it serves, where these differ; slots have room for the largest
    Raises ConfigError for ranks without adapters, and as `rules_of` does.
    """
    deployment = _with_ranks(deployment.under(DEFAULT_ENGINE), ranks)
    engine = _engine(deployment)
    settings = limits.settings(engine)
    changed = _memory(deployment, engine.memory, settings)
    if changed:  # equal arguments give the same object, by which formulas are cached
        engine = _engines.get((engine, repr(changed)), partial(_with_memory, engine, changed))
    lora = deployment.lora
    if deployment.adapter is not None and deployment.adapter.strategy == "dynamic":
        lora = _with_slots(deployment.adapter, engine, settings)
    return replace(deployment, engine=engine, lora=lora)


def rules_of(deployment: Deployment, limits: EngineLimits = NO_LIMITS, ranks: Sequence[int] = ()) -> Rules:
    """The rules of a server with these settings.

    ranks: as in `served`
    Raises ConfigError for settings that the engine does not know or that do not go together, InfeasibleError where
    weights and slots leave no room for a KV cache, or it is too small for the length asked for.
    """
    deployment = served(deployment, limits, ranks)
    engine = _engine(deployment)
    settings, scheduler, host = limits.settings(engine), engine.scheduler, engine.host
    block = int(engine.memory.block_tokens)
    space = footprint_of(deployment)
    blocks = _blocks(deployment, space, settings, block)
    length = _model_len(deployment, settings, blocks * block)
    tokens, sequences = _step(deployment, space, settings, blocks * block, length)
    initial = min(scheduler.new_token_ratio * settings.get("conservativeness", 1.0), 1.0)
    least = initial * scheduler.least_ratio
    rules = Rules(
        kv_blocks=blocks, block_tokens=block, max_model_len=length, max_num_batched_tokens=tokens,
        max_num_seqs=sequences, order="mixed" if host.mixed_steps else "prefill_first", chunked=host.chunked_prompts,
        admission=scheduler.admission, watermark=scheduler.watermark, shortage=scheduler.shortage,
        policy=scheduler.policy, prefix_cache=scheduler.prefix_cache, new_token_ratio=initial, least_ratio=least,
        ratio_decay=(initial - least) / scheduler.ratio_steps, prefill_interval=int(scheduler.prefill_interval),
        async_scheduling=host.planned_ahead, receive_steps=int(host.receive_steps),
        wait_steps=int(host.batch_wait_steps), wait_share=host.batch_wait_share,
        adapters=_adapters(deployment.adapter, engine, settings),
        tiers=tiers_of(deployment, engine, space, settings, blocks, block),
        tier_reads="overlapped" if scheduler.flags == "sglang" else "stall",
    )  # fmt: skip
    kept = {field.name for field in fields(Rules)} - {
        "kv_blocks", "block_tokens", "max_model_len", "max_num_batched_tokens", "max_num_seqs", "adapters", "tiers",
    }  # fmt: skip
    return replace(rules, **{name: value for name, value in settings.items() if name in kept})


def captured_of(deployment: Deployment, limits: EngineLimits = NO_LIMITS) -> tuple[tuple[int, ...], bool]:
    """Sizes of generating batches that are captured graphs, and whether a step runs as the next of them."""
    deployment = served(deployment, limits)
    engine = _engine(deployment)
    settings, scheduler = limits.settings(engine), engine.scheduler
    pads = settings.get("pads", scheduler.pads)
    if "captured_sizes" in settings:
        return settings["captured_sizes"], pads
    most = inf
    if scheduler.captured_per_sequence:
        sequences = settings.get("max_num_seqs") if engine.scheduler.step_sequences == 0 else None
        most = scheduler.captured_per_sequence * (sequences or float(step_limits(deployment)[1]) or inf)
    most = settings.get("largest_captured", most)
    sizes = scheduler.captured_sizes[: bisect_right(scheduler.captured_sizes, most)]
    if sizes and sizes[-1] < most <= scheduler.captured_sizes[-1] and scheduler.flags == "sglang":
        sizes = (*sizes, int(most))
    return sizes, pads


def _engine(deployment: Deployment) -> EngineProfile:
    if deployment.engine is None:
        raise ConfigError("engine = None is not allowed here; name an engine")
    return deployment.engine


def _with_ranks(deployment: Deployment, ranks: Sequence[int]) -> Deployment:
    if not ranks:
        return deployment
    if deployment.adapter is None:
        raise ConfigError("ranks of adapters are given, but the deployment has no LoraConfig")
    return replace(deployment, lora=replace(deployment.adapter, mixed_ranks=tuple(ranks)))


def _memory(deployment: Deployment, memory: EngineMemory, settings: Settings) -> Settings:
    """The engine's use of memory with the settings applied; limits of steps hold on every device once one is given."""
    changed: Settings = {}
    own = "largest_captured" if _engine(deployment).scheduler.step_sequences else "max_num_seqs"
    if memory.chunk_tokens and {"max_num_batched_tokens", own} & settings.keys():
        tokens, sequences = (float(limit) for limit in step_limits(deployment))
        tokens = float(settings.get("max_num_batched_tokens", tokens))
        sequences = float(settings.get(own, min(sequences, tokens)))
        changed = {
            "chunk_tokens": tokens, "sequences": sequences, "large_chunk_tokens": tokens, "large_sequences": sequences,
        }  # fmt: skip
    if "block_tokens" in settings:
        changed["block_tokens"] = float(settings["block_tokens"])
    if "memory_share" in settings:
        changed |= _share(deployment, settings["memory_share"])
    return changed


def _with_memory(engine: EngineProfile, changed: Settings) -> EngineProfile:
    return replace(engine, memory=replace(engine.memory, **changed))


def _share(deployment: Deployment, share: float) -> Settings:
    """`--gpu-memory-utilization`, `--mem-fraction-static`, `free_gpu_memory_fraction`, each in its engine's sense."""
    flags = _engine(deployment).scheduler.flags
    if flags == "sglang":
        rest = (1.0 - share) * float(deployment.device.usable_bytes)
        none = dict.fromkeys(
            ("reserve_token_bytes", "reserve_sequence_bytes", "reserve_device_bytes", "least_reserve_bytes"), 0.0
        )
        return {"reserve_bytes": rest, **none}
    return {"cache_share": share} if flags == "trtllm" else {"share": share}


def _with_slots(lora: LoraConfig, engine: EngineProfile, settings: Settings) -> LoraConfig:
    """The adapters with as many slots, of as large a rank, as asked for or as the engine has by default."""
    usual = max(float(lora.max_loras) or engine.scheduler.max_loras, float(lora.active_adapters))
    slots = settings.get("max_loras", usual)
    rank = settings.get("max_lora_rank", lora.max_lora_rank)
    active = min(float(lora.active_adapters), float(slots))
    return replace(lora, max_loras=int(np.ceil(slots)), max_lora_rank=rank, active_adapters=active)


def _blocks(deployment: Deployment, space: Footprint, settings: Settings, block: int) -> int:
    """Blocks of the KV cache, as given or as memory leaves room for."""
    if "kv_blocks" in settings:
        if "kv_tokens" in settings and settings["kv_tokens"] // block != settings["kv_blocks"]:
            raise ConfigError(
                f"limits: {settings['kv_tokens']:,} tokens and {settings['kv_blocks']:,} blocks of {block} say "
                "different things of the KV cache; leave one out"
            )
        return int(settings["kv_blocks"])
    tokens = float(settings.get("kv_tokens", space.kv_tokens))
    blocks = WITHOUT_END if tokens == inf else int(tokens // block)
    if blocks < 1:
        slots = f", {amount_text(space.slots)} adapter slots" if float(space.slots) else ""
        raise InfeasibleError(
            f"'{deployment.model.name}' on '{deployment.device.name}' leaves no room for a KV cache: "
            f"{scaled(float(space.weights_bytes), 'B')} of weights{slots} and "
            f"{scaled(float(space.workspace_bytes), 'B')} of workspace take all of the memory that engine "
            f"'{deployment.engine_name}' takes; use more devices, fewer slots or a smaller format"
        )
    return blocks


def _model_len(deployment: Deployment, settings: Settings, cache_tokens: int) -> float:
    """Tokens of the longest request: as set; otherwise the model's maximum, limited by the cache."""
    asked = settings.get("max_model_len")
    if asked is not None and asked > cache_tokens:
        raise InfeasibleError(
            f"limits.max_model_len = {asked:.0f} is not allowed: the KV cache of '{deployment.model.name}' on "
            f"'{deployment.device.name}' holds {amount_text(cache_tokens)} tokens, the most allowed"
        )
    positions = float(deployment.model.max_positions) or inf
    return float(asked) if asked is not None else min(positions, float(cache_tokens))


def _step(
    deployment: Deployment, space: Footprint, settings: Settings, cache_tokens: int, length: float
) -> tuple[int, int]:
    """Tokens and sequences of a step at most."""
    engine = _engine(deployment)
    scheduler = engine.scheduler
    tokens, sequences = (float(limit) for limit in step_limits(deployment))
    tokens = float(settings.get("max_num_batched_tokens", tokens or scheduler.step_cache_share * cache_tokens)) or inf
    tokens = min(tokens, settings.get("most_prompt_tokens", inf))
    chunked = settings.get("chunked", engine.host.chunked_prompts)
    if not chunked and (scheduler.step_fits_model or scheduler.flags == "vllm"):
        if scheduler.flags == "vllm" and settings.get("max_num_batched_tokens", inf) < length < inf:
            raise ConfigError(
                f"limits.max_num_batched_tokens = {tokens:.0f} is not allowed without chunked prefill: it "
                "is less than "
                f"max_model_len ({amount_text(length)}); raise it, or lower max_model_len"
            )
        tokens = max(tokens, length)
    sequences = scheduler.step_sequences or sequences or inf
    if scheduler.sequences_per_model and length < inf:
        fitting = scheduler.sequences_per_model * cache_tokens / length
        sequences = min(max(fitting, sequences), scheduler.most_sequences)
    mixed = settings.get("order") == "mixed" or ("order" not in settings and engine.host.mixed_steps)
    if "max_num_seqs" in settings:
        sequences = settings["max_num_seqs"]
        if mixed and scheduler.flags == "vllm" and sequences > tokens:
            raise ConfigError(
                f"limits.max_num_seqs = {sequences:.0f} is not allowed: max_num_batched_tokens "
                f"({amount_text(tokens)}) must be "
                "greater than or equal to max_num_seqs"
            )
    elif mixed:
        sequences = min(sequences, tokens)
    if cache_tokens >= WITHOUT_END:  # only a state per request: as many as have room for theirs
        sequences = min(sequences, float(space.concurrency(1)))
    return int(min(tokens, WITHOUT_END)), int(min(sequences, WITHOUT_END))


def _adapters(lora: LoraConfig | None, engine: EngineProfile, settings: Settings) -> AdapterRules:
    """Slots and tiers; without adapters, none."""
    if lora is None:
        return AdapterRules()
    scheduler = engine.scheduler
    merges = lora.strategy != "dynamic"
    slots = MERGED_SLOTS if merges else int(lora.max_loras)
    in_host = WITHOUT_END if scheduler.keeps_all or merges else int(scheduler.max_cpu_loras) or slots
    in_host = settings.get("max_cpu_loras", max(in_host, slots))
    if in_host < slots:
        raise ConfigError(f"limits.max_cpu_loras = {in_host} is not allowed; expected at least max_loras ({slots})")
    rules = AdapterRules(
        max_loras=slots, max_cpu_loras=in_host, skips=scheduler.skips, skip_s=engine.host.skip_s,
        loads="overlapped" if engine.load_overlapped else "stall", eviction=scheduler.eviction,
        prefetch=int(scheduler.prefetch), preloaded=scheduler.keeps_all, drain_after_s=scheduler.drain_after_s or inf,
        base_takes_place=any(limit.base_counts for limit in engine.limits.rules),
    )  # fmt: skip
    kept = {field.name for field in fields(AdapterRules)} - {"max_loras", "max_cpu_loras"}
    return replace(rules, **{name: value for name, value in settings.items() if name in kept})
