"""Context parallelism of inference: a rank's part of a step, the pass behind it, and who keeps which part of the cache.

How ranks do it is the engine's way (`EngineProfile.context_exchange`, `context_cache`).
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
from graphsim.models.rank_share import on_rank
from graphsim.passes.served_context import ShareServedContext
from graphsim.units import Num, short


def shares_cache(model: ModelConfig, engine: EngineProfile | None) -> bool:
    """Whether context-parallel ranks share the cache; without an engine they do, as in ring attention.

    Where an indexer chooses keys, each rank keeps all of them: it chooses among those of the whole sequence (vLLM
    documentation, serving/context_parallel_deployment.md, GLM-5.2: prefill ranks without decode ranks).
    """
    return (engine is None or engine.context_cache == "sharded") and not has_indexer(model)


def cache_ranks(model: ModelConfig, engine: EngineProfile | None, degrees: Parallelism) -> Num:
    """Ranks that each keep a part of a request's cache."""
    return degrees.cp if has_ranks(degrees) and shares_cache(model, engine) else 1.0


def has_ranks(degrees: Parallelism) -> bool:
    """Whether there are several context-parallel ranks in some scenario."""
    return bool(np.any(np.greater(degrees.cp, 1)))


def own_part(phase: Phase, model: ModelConfig, engine: EngineProfile | None, degrees: Parallelism) -> Phase:
    """A step as one of the ranks runs it."""
    if not has_ranks(degrees):
        return phase
    return on_rank(phase, degrees.cp, shares_cache=shares_cache(model, engine))


def context_passes(model: ModelConfig, engine: EngineProfile | None, degrees: Parallelism) -> tuple[Pass, ...]:
    """The pass behind the cut over tensor-parallel devices; none where there is one rank.

    Raises ConfigError for one rank in some scenarios only, where each keeps the whole cache.
    """
    if not has_ranks(degrees):
        return ()
    exchange = engine.context_exchange if engine else "p2p"
    shared = shares_cache(model, engine)
    if not shared and np.any(np.equal(degrees.cp, 1)):  # whose kernels write a cache that nothing is gathered for
        raise ConfigError(f"parallelism.cp = {short(degrees.cp)} is 1 in some scenarios only; simulate them apart")
    return (ShareServedContext(ways=degrees.cp, stride=degrees.tp, exchange=exchange, shares_cache=shared),)
