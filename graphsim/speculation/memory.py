"""The memory of a draft in addition to the model."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from graphsim.deployment.deployment import Deployment
from graphsim.deployment.inference import Inference
from graphsim.deployment.memory import LEAST_BYTES, Memory, fullest, weight_bytes
from graphsim.graph import walk
from graphsim.ops import Embedding
from graphsim.speculation.drafts import Draft
from graphsim.units import Num


def with_draft(inference: Inference, draft: Draft, tokens: Num) -> Memory:
    """The model's memory with the draft's weights and cache, and the rows of drafted tokens in both caches.

    tokens: drafted in a step, for whose keys and values each sequence holds places. Both run in one process and one
    after the other, so that the larger of their activations counts; of several stages, the last one has the draft.
    """
    requests = replace(inference.requests, output_tokens=inference.requests.output_tokens + tokens)
    ahead = replace(inference, requests=requests)
    pairs = list(zip(inference.memories(), ahead.memories(), strict=True))
    beside = None
    if draft.deployment is not None:
        beside = replace(ahead, deployment=draft.deployment).memory()
        beside = replace(beside, weights_bytes=beside.weights_bytes + table_bytes(inference.deployment))
    found = [
        _stage(inference, own, later, beside if i == len(pairs) - 1 else None, tokens)
        for i, (own, later) in enumerate(pairs)
    ]
    return found[0] if len(found) == 1 else fullest(found)


def table_bytes(target: Deployment) -> Num:
    """The embedding's table on the last of several stages, where a draft reads it and the model does not.

    As in vLLM (pull request 50514), per device; nothing where the output head is the same table.
    """
    if target.parallelism.pp == 1 or target.model.tied_embeddings:
        return 0.0
    tables = [weight_bytes(op) for _, op, _ in walk(target.stored.held()[0]) if isinstance(op, Embedding)]
    return max(tables, default=0.0)


def _stage(inference: Inference, own: Memory, later: Memory, beside: Memory | None, tokens: Num) -> Memory:
    """One stage. own, later: of the model alone, without and with places for drafted rows; beside: of the draft"""
    weights, cache, activations = own.weights_bytes, later.kv_cache_bytes, own.activations_bytes
    if beside is not None:
        drafts = np.where(np.greater(tokens, 0.0), 1.0, 0.0)[()]
        weights = weights + drafts * beside.weights_bytes
        cache = cache + drafts * beside.kv_cache_bytes
        activations = np.maximum(activations, drafts * beside.activations_bytes)
    batch = inference.requests.batch
    found = replace(own, weights_bytes=weights, kv_cache_bytes=cache, activations_bytes=activations)
    free = found.capacity_bytes - (found.total_bytes - cache)
    fitting = np.floor(np.maximum(free, 0.0) / np.maximum(cache / batch, LEAST_BYTES) * (1.0 + 1e-12))
    return replace(found, max_batch=np.minimum(own.max_batch, fitting))
