"""Refusals of context parallelism: layers that carry a state along the tokens, encoders, and engines without it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import networkx as nx
import numpy as np

from graphsim.deployment.refusals.broken import Broken
from graphsim.graph import walk
from graphsim.lora.profile import EngineProfile
from graphsim.models.build import build
from graphsim.models.config import ModelConfig
from graphsim.models.phase import prefill
from graphsim.ops import Attention, KvCache, Repeat
from graphsim.ops.precision import load_precision
from graphsim.symbolic.memo import Memo

if TYPE_CHECKING:
    from graphsim.deployment.deployment import Deployment


def of_context(deployment: Deployment, profile: EngineProfile) -> Iterator[Broken]:
    """The rules of context parallelism that a deployment with several ranks breaks."""
    degrees = deployment.parallelism
    several = np.greater(degrees.cp, 1)
    asked: dict[str, Any] = {"asked": "parallelism.cp", "value": degrees.cp, "allowed": "1"}
    words = _unshared(deployment.model)
    if words:
        yield Broken(rule="context_layers", where=several, words=words, always=True, **asked)
    beside = several & np.greater(degrees.attention_replicas, 1)
    words = "attention in replicas behind one set of experts (ep above tp) is not simulated beside it"
    yield Broken(rule="context_replicas", where=beside, words=words, always=True, **asked)
    if profile.limits.get("context"):
        yield Broken(rule="context", where=several, **asked)


def _unshared(model: ModelConfig) -> str:
    """Why a model cannot run on a rank's own tokens; "" if it can."""
    if model.source_encoder is not None or any(tower.seen for tower in model.encoders):
        return "the decoder's layers read an encoder's output, which is not simulated as shared among ranks"
    return _words.get((model.layers,), lambda: _words_of(build(model, prefill(1.0, 2.0), load_precision("bf16"))))


_words: Memo[str] = Memo(most=64)


def _words_of(graph: nx.DiGraph) -> str:
    ops = [op for _, op, _ in walk(graph)]
    stateful = [op for op in ops if not isinstance(op, KvCache) and np.any(op.state_bytes)]
    if stateful:
        return f"{type(stateful[0]).__name__} passes a state along the tokens of a sequence"
    if any(isinstance(op, Attention) and not op.causal for op in ops):
        return "attention that sees tokens on both sides keeps no cache that ranks could share"
    if _reads_otherwise(graph):
        return "something other than attention reads the cache, which is not simulated as shared among ranks"
    return ""


def _reads_otherwise(graph: nx.DiGraph) -> bool:
    """Whether any consumer of a cache is not attention."""
    for name, op in graph.nodes(data="op"):
        if isinstance(op, Repeat) and _reads_otherwise(op.body):
            return True
        users = [graph.nodes[user]["op"] for user in graph.successors(name)]
        if isinstance(op, KvCache) and not all(isinstance(user, Attention) for user in users):
            return True
    return False
