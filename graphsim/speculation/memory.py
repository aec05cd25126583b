"""What a draft takes of a device's memory beside the model."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from graphsim.deployment.inference import Inference
from graphsim.deployment.memory import LEAST_BYTES, Memory
from graphsim.speculation.drafts import Draft
from graphsim.units import Num


def with_draft(inference: Inference, own: Memory, draft: Draft, tokens: Num) -> Memory:
    """The model's memory with the draft's weights and cache, and the rows of drafted tokens in both caches.

    own: of the model alone; tokens: drafted in a step, for whose keys and values each sequence holds places. Both run
    in one process and one after the other, so that the larger of their activations counts.
    """
    ahead = replace(inference.requests, output_tokens=inference.requests.output_tokens + tokens)
    model = replace(inference, requests=ahead).memory()
    weights, cache, activations = own.weights_bytes, model.kv_cache_bytes, own.activations_bytes
    if draft.deployment is not None:
        drafts = np.where(np.greater(tokens, 0.0), 1.0, 0.0)[()]
        beside = replace(inference, deployment=draft.deployment, requests=ahead).memory()
        weights = weights + drafts * beside.weights_bytes
        cache = cache + drafts * beside.kv_cache_bytes
        activations = np.maximum(activations, drafts * beside.activations_bytes)
    batch = inference.requests.batch
    found = replace(own, weights_bytes=weights, kv_cache_bytes=cache, activations_bytes=activations)
    free = found.capacity_bytes - (found.total_bytes - cache)
    fitting = np.floor(np.maximum(free, 0.0) / np.maximum(cache / batch, LEAST_BYTES) * (1.0 + 1e-12))
    return replace(found, max_batch=np.minimum(own.max_batch, fitting))
