"""The order of passes as data: what a deployment's description makes of a logical graph, and in which order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

import networkx as nx
import numpy as np

from graphsim.errors import ConfigError, GraphError, choices_text
from graphsim.graph import STAGES, Pass, validate
from graphsim.lora.injection import Buffers, Inject
from graphsim.lora.variants import require_engine
from graphsim.passes.dequantise import FUSED_TOKENS, WIDENED, WidenWeights
from graphsim.passes.engine import Engine
from graphsim.passes.experts import DealExperts
from graphsim.passes.launches import LaunchEagerly
from graphsim.passes.lower import lowering
from graphsim.passes.pack import Pack
from graphsim.passes.shard import Shard
from graphsim.units import short

if TYPE_CHECKING:
    from graphsim.deployment.deployment import Deployment

Watch = Callable[[Pass, nx.DiGraph], None]
"""Called behind each pass with the graph that it yielded."""


def passes_of(deployment: Deployment) -> tuple[Pass, ...]:
    """The passes from the logical graph to what a device runs, a user's own behind the others of their stage.

    Raises ConfigError for an adapter that the engine does not run, and for what is no pass.
    """
    return in_order(_house_passes(deployment), deployment.passes)


def in_order(house: Iterable[Pass], own: Iterable[Pass]) -> tuple[Pass, ...]:
    """Passes by stage, and within a stage the house's before a user's own.

    Raises ConfigError for what is no pass, and for a stage that there is not.
    """
    house, own = tuple(house), tuple(own)
    for given in own:
        if not isinstance(given, Pass):
            raise ConfigError(f"passes holds {short(given)}, which is no pass; expected objects of a subclass of Pass")
        if given.stage not in STAGES:
            where = f"{type(given).__name__}.stage = {short(given.stage)}"
            raise ConfigError(f"{where} is not allowed; {choices_text(given.stage, STAGES)}")
    return tuple(one for stage in STAGES for group in (house, own) for one in group if one.stage == stage)


def run(passes: Iterable[Pass], graph: nx.DiGraph, after: Watch | None = None) -> nx.DiGraph:
    """The graph behind all passes. after: sees each pass with the graph that it yielded."""
    for one in passes:
        graph = one(graph)
        if after is not None:
            after(one, graph)
    return graph


def check(one: Pass, graph: nx.DiGraph) -> None:
    """For `after`: raise GraphError naming the pass unless its graph is valid at the pass's stage."""
    try:
        validate(graph, one.stage)
    except GraphError as error:
        raise GraphError(f"behind pass {type(one).__name__}: {error}") from None


def _house_passes(deployment: Deployment) -> Iterator[Pass]:
    degrees, adapters = deployment.parallelism, _adapters(deployment)
    if np.any(np.asarray(degrees.ep) > 1):
        yield DealExperts(ep=degrees.ep, tp=degrees.tp)
    if deployment.lora is not None and deployment.lora.enabled:
        yield Inject(lora=deployment.lora, buffers=adapters.buffers if adapters else Buffers())
    if not np.all(np.less_equal(degrees.tp, 1)):
        yield Shard(tp=degrees.tp, sequence_parallel=bool(np.any(np.asarray(degrees.sp) > 1)))
    yield Pack()
    if deployment.precision.weights.name in WIDENED:
        yield WidenWeights(fused_tokens=deployment.engine.fused_4bit_tokens if deployment.engine else FUSED_TOKENS)
    if adapters:
        yield from lowering(adapters)
    if deployment.engine is not None and deployment.engine.launch == "eager":
        yield LaunchEagerly()


def _adapters(deployment: Deployment) -> Engine | None:
    """The engine's way with the adapters, where there are any."""
    lora, engine = deployment.lora, deployment.engine
    if lora is None or engine is None:
        return None
    if lora.strategy == "dynamic":
        require_engine(lora, engine.kernels, engine.name)
    return Engine(profile=engine, lora=lora, embedding_slots=engine.has_embedding_slots(deployment.model.name))
