"""A server's requirements on its traffic's adapters, and the refusals and notes on the traffic."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from graphsim.deployment.deployment import DEFAULT_ENGINE, Deployment
from graphsim.errors import ConfigError, choices_text
from graphsim.lora.config import LoraConfig
from graphsim.serving.engine_limits import EngineLimits
from graphsim.serving.rules import Rules
from graphsim.serving.strategies import STRATEGIES, strategy_names
from graphsim.serving.tiers import tier_notes
from graphsim.speculation.speculation import Speculation
from graphsim.traffic.table import RequestTable
from graphsim.traffic.traffic import Traffic
from graphsim.units import amount_text, short

ALSO = {"merge": "merged", "paged": "unified"}
"""Further names of strategies."""
_SHOWN = {"unified": "paged"}


def strategy_of(asked: str | None, deployment: Deployment) -> str:
    """How adapters are served, with its policy: `dynamic`, `merged:greedy`, `mixed`, `unified`.

    asked: None for dynamic, merged where `lora.strategy` is `merge`, or unified where the engine's adapters share its
        cache's pool. Raises ConfigError for a name that is none.
    """
    if asked is None:
        engine = deployment.under(DEFAULT_ENGINE).engine
        shares = engine is not None and engine.scheduler.shares_pool
        merges = deployment.lora is not None and deployment.lora.strategy == "merge"
        asked = "merged" if merges else "unified" if shares else "dynamic"
    name, colon, policy = str(asked).lower().partition(":")
    if ALSO.get(name, name) not in STRATEGIES:
        known = {_SHOWN.get(each, each) for each in STRATEGIES}
        raise ConfigError(f"strategy = {short(asked)} is not known; {choices_text(name, known)}")
    return ":".join(filter(None, strategy_names(f"{ALSO.get(name, name)}{colon}{policy}")))


def strategy_text(strategy: str) -> str:
    """A strategy by the name under which it is asked for, in quotes."""
    return repr(_SHOWN.get(strategy, strategy))


def with_adapters_of(deployment: Deployment, traffic: Traffic) -> tuple[Deployment, tuple[str, ...]]:
    """The deployment with rank and targets of the traffic's adapters, and the assumptions made."""
    lora, ranks = deployment.lora, traffic.ranks
    if not traffic.adapters:
        return deployment, ()
    if lora is None or not lora.enabled:
        largest = max(ranks) if ranks else LoraConfig().rank
        rank = amount_text(largest)
        note = f"adapters are taken to be of rank {rank} on attention and MLP, as no LoraConfig says otherwise"
        return replace(deployment, lora=LoraConfig(rank=largest)), (note,)
    if ranks and max(ranks) > np.max(lora.largest_rank) and not np.max(lora.max_lora_rank):
        return replace(deployment, lora=replace(lora, rank=max(ranks))), ()
    return deployment, ()


def as_served(deployment: Deployment, strategy: str) -> Deployment:
    """The deployment with a LoraConfig for a strategy's memory use: with slots, or without."""
    lora = deployment.lora
    if lora is None or not lora.enabled:
        return deployment
    in_weights = strategy.startswith("merged") and strategy != "merged:credits"
    way = "merge" if in_weights else "dynamic"
    return deployment if lora.strategy == way else replace(deployment, lora=replace(lora, strategy=way))


def largest_rank(deployment: Deployment, traffic: Traffic) -> int:
    """The largest rank of the registered adapters."""
    lora = deployment.lora or LoraConfig()
    return max(traffic.ranks) if traffic.ranks else int(np.max(lora.largest_rank))


def check_ranks(deployment: Deployment, traffic: Traffic, limits: EngineLimits) -> None:
    """Raise ConfigError for adapters that do not fit in the slots' rank."""
    lora = deployment.lora
    if lora is None or not traffic.adapters:
        return
    reserved, largest = float(limits.given.get("max_lora_rank", np.max(lora.max_lora_rank))), 0
    if reserved and (largest := largest_rank(deployment, traffic)) > reserved:
        raise ConfigError(
            f"an adapter of rank {largest} does not fit in slots of max_lora_rank {amount_text(reserved)}; allowed: "
            "up to "
            f"{amount_text(reserved)}, or raise max_lora_rank"
        )


def check_lengths(deployment: Deployment, table: RequestTable) -> None:
    """Raise ConfigError if every request exceeds the model's maximum length."""
    positions, tokens = float(deployment.model.max_positions), table.input_tokens + table.output_tokens
    shortest = int(tokens.min()) if len(tokens) else 0
    if positions and shortest > positions:
        raise ConfigError(
            f"every request has {shortest:,} tokens or more, prompt and answer, but model '{deployment.model.name}' "
            f"has {positions:,.0f} positions"
        )


def check_strategy(speculation: Speculation | None, strategy: str, has_adapters: bool) -> None:
    """Raise ConfigError for a strategy with which speculation is not simulated."""
    if speculation is not None and has_adapters and strategy != "dynamic":
        raise ConfigError(
            f"serve: speculation with strategy = {strategy_text(strategy)} is not simulated; allowed: dynamic, or no "
            "adapters"
        )


def cautions(
    deployment: Deployment, traffic: Traffic, limits: EngineLimits, rules: Rules, table: RequestTable
) -> Iterator[str]:
    """Notes on traffic that the server will not serve as the user may expect."""
    lora, registered = deployment.lora, len(traffic.adapters)
    if lora is not None and lora.enabled and lora.strategy == "dynamic":
        yield from _of_slots(deployment, lora, limits, rules.adapters.max_loras, registered)
    tokens = table.input_tokens + table.output_tokens
    if (too_long := int((tokens > rules.max_model_len).sum())) > 0:
        cache = rules.kv_blocks * rules.block_tokens
        whose = "as many as the KV cache holds" if rules.max_model_len == cache else "prompt and answer"
        yield (
            f"{too_long:,} of {len(tokens):,} requests are longer than max_model_len = "
            f"{amount_text(rules.max_model_len)} "
            f"tokens, {whose}, and are refused"
        )
    yield from tier_notes(rules.tiers)
    if (replicas := int(np.max(deployment.parallelism.attention_replicas))) > 1:
        yield (
            f"requests are spread evenly over {replicas} attention replicas, which step together; adapters are in the "
            "slots of all of them"
            if registered
            else f"requests are spread evenly over {replicas} attention replicas, which step together"
        )
    stages = float(np.max(deployment.parallelism.pp))
    if stages > 1:
        yield (
            f"a step passes all {amount_text(stages)} pipeline stages before the next begins; engines keep a batch "
            "in each, so "
            f"near saturation throughput is up to {amount_text(stages)} times this"
        )
    if deployment.caution:
        yield deployment.caution


def merging_notes(deployment: Deployment, strategy: str) -> Iterator[str]:
    """Caveats of a strategy that merges adapters into the weights."""
    if strategy.partition(":")[0] not in ("merged", "mixed"):
        return
    yield "the batch drains before other weights are merged; requests for these wait until all running ones end"
    few = [own.name for own in deployment.precision.of_weights if own.bytes < 1.0]
    if few:
        yield (
            f"weights in {', '.join(few)} are widened, merged and rounded again at each switch: that adapters keep "
            "their effect is not simulated, and engines may refuse it"
        )


def _of_slots(
    deployment: Deployment, lora: LoraConfig, limits: EngineLimits, slots: int, registered: int
) -> Iterator[str]:
    engine = deployment.under(DEFAULT_ENGINE).engine
    given = bool(np.max(lora.max_loras)) or (engine is not None and "max_loras" in limits.settings(engine))
    if not registered:
        yield (
            "no request of this traffic has an adapter (adapters=0): slots take their memory, and all requests go to "
            "the base model"
        )
    elif 0 < slots < registered and not given and engine is not None:
        yield f"max_loras = {slots}, as engine {engine.name} starts without it: that many adapters run at a time"
    elif slots > registered:
        yield (
            f"max_loras = {slots} slots are more than the {registered} registered adapters: the others stay empty and "
            "take memory from the KV cache"
        )
