"""Context parallelism in inference: a rank's part of a step, the pass for its collectives, and where the cache is.

The engine decides how ranks exchange keys and store the cache (`EngineProfile.context_exchange`, `context_cache`).
"""

from __future__ import annotations

import numpy as np

from graphsim.deployment.cutting import has_indexer
from graphsim.deployment.parallelism import Parallelism
from graphsim.errors import ConfigError
from graphsim.graph import Pass
from graphsim.lora.profile import EngineProfile
from graphsim.models.config import ModelConfig
from graphsim.models.phase import Phase
from graphsim.units import Num, short


def shares_cache(model: ModelConfig, engine: EngineProfile | None) -> bool:
    """Whether the KV cache is sharded over context-parallel ranks; without an engine it is, as in ring attention.

    With an indexer each rank keeps all keys, since it chooses among those of the whole sequence (vLLM
    documentation, serving/context_parallel_deployment.md, GLM-5.2: prefill ranks without decode ranks).
    """
    return (engine is None or engine.context_cache == "sharded") and not has_indexer(model)


def cache_ranks(model: ModelConfig, engine: EngineProfile | None, degrees: Parallelism) -> Num:
    """Number of ranks over which a request's KV cache is sharded."""
    return degrees.cp if has_ranks(degrees) and shares_cache(model, engine) else 1.0


def has_ranks(degrees: Parallelism) -> bool:
    """Whether any scenario has several context-parallel ranks."""
    return bool(np.any(np.greater(degrees.cp, 1)))


def own_part(phase: Phase, model: ModelConfig, engine: EngineProfile | None, degrees: Parallelism) -> Phase:
    """The step as one of the ranks runs it."""
    if not has_ranks(degrees):
        return phase
    from graphsim.models.rank_share import on_rank

    return on_rank(phase, degrees.cp, shares_cache=shares_cache(model, engine))


def context_passes(model: ModelConfig, engine: EngineProfile | None, degrees: Parallelism) -> tuple[Pass, ...]:
    """The pass that follows tensor-parallel sharding; none with one rank.

    Raises ConfigError if only some scenarios have one rank and the KV cache is replicated.
    """
    if not has_ranks(degrees):
        return ()
    from graphsim.passes.served_context import ShareServedContext

    exchange = engine.context_exchange if engine else "p2p"
    shared = shares_cache(model, engine)
    if not shared and np.any(np.equal(degrees.cp, 1)):  # kernels that write a cache without a gather
        raise ConfigError(
            f"parallelism.cp = {short(degrees.cp)} is 1 in some scenarios only; simulate those separately"
        )
    return (ShareServedContext(ways=degrees.cp, stride=degrees.tp, exchange=exchange, shares_cache=shared),)
