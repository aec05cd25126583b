"""A deployment's adapters in the blocks of its KV cache: how many each takes, and the pool without slots."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from graphsim.analysis.lifecycle import lifecycle_of
from graphsim.analysis.slots import footprint_of
from graphsim.deployment.deployment import DEFAULT_ENGINE, Deployment
from graphsim.errors import ConfigError
from graphsim.serving.engine_limits import EngineLimits
from graphsim.serving.engine_rules import rules_of, served
from graphsim.serving.paging import blocks_of
from graphsim.serving.rules import Rules


def unified_rules(
    deployment: Deployment, adapters: int, limits: EngineLimits | None = None, ranks: Sequence[int] = ()
) -> tuple[Rules, list[int]]:
    """The rules of a server that pages adapters with the KV cache, and the blocks that each adapter takes.

    What its slots would reserve goes to the cache, and a step may have all adapters that have room there; an adapter
    takes as many blocks as its own rank has bytes. A cache of a size that was given (`kv_blocks`, `kv_tokens`) is the
    pool as it is.
    adapters: registered ones
    limits, ranks: as in `rules_of`. Raises ConfigError as it does, and for a cache that does
    not grow with the context.
    """
    limits = limits or EngineLimits()
    rules = rules_of(deployment, limits, ranks)
    whole = served(deployment, limits, ranks)
    lora, engine = whole.adapter, whole.engine
    if lora is None or engine is None:
        raise ConfigError("unified paging keeps adapters in the KV cache, but the deployment has no LoraConfig")
    space = footprint_of(whole)
    block_bytes = float(space.kv_token_bytes) * rules.block_tokens
    each = {float(rank): _adapter_bytes(whole, float(rank)) for rank in {*(ranks or (float(lora.rank),))}}
    blocks = blocks_of([each[float(ranks[i] if ranks else lora.rank)] for i in range(adapters)], block_bytes)
    if not {"kv_blocks", "kv_tokens"} & limits.settings(engine).keys():
        reserved = float(space.slots) * float(space.slot_bytes)
        rules = replace(rules, kv_blocks=rules.kv_blocks + int(reserved // block_bytes))
    return replace(rules, adapters=replace(rules.adapters, max_loras=adapters)), blocks


def unified_terms(
    deployment: Deployment, adapters: int, limits: EngineLimits | None = None
) -> tuple[Deployment, EngineLimits]:
    """What `price_of` is asked with: a step may have as many adapters as are registered, however many slots are set."""
    limits = limits or EngineLimits()
    engine, lora = deployment.under(DEFAULT_ENGINE).engine, deployment.adapter
    if lora is None or engine is None:
        return deployment, limits
    others = {
        name: value
        for name, value in limits.given.items()
        if "max_loras" not in EngineLimits(**{name: value}).settings(engine)
    }
    return replace(deployment, lora=replace(lora, max_loras=max(adapters, 1))), EngineLimits(**others)


def _adapter_bytes(deployment: Deployment, rank: float) -> float:
    lora = deployment.adapter
    if lora is None:
        return 0.0
    alone = replace(deployment, lora=replace(lora, mixed_ranks=(), rank=round(rank), active_adapters=1))
    return float(lifecycle_of(alone).adapter_bytes)
