"""What engines refuse of requests: more tokens than the model has positions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from graphsim.deployment.refusals.broken import Broken
from graphsim.lora.profile import EngineProfile

if TYPE_CHECKING:
    from graphsim.deployment.deployment import Deployment
    from graphsim.deployment.inference import Requests


def of_requests(deployment: Deployment, profile: EngineProfile, requests: Requests) -> Iterator[Broken]:
    """Every rule of requests that a batch of them may break."""
    yield from _positions(deployment, profile, requests)


def _positions(deployment: Deployment, profile: EngineProfile, requests: Requests) -> Iterator[Broken]:
    """Servers count the prompt and all tokens to be generated; the last of these takes no position of its own."""
    limit, positions = profile.limits.get("positions"), deployment.model.max_positions
    if limit is None or not positions:
        return
    learned = bool(getattr(deployment.model.stem, "positions", 0))
    if limit.models == "learned" and not learned:
        return
    tokens = requests.input_tokens + requests.output_tokens - (1.0 if limit.models == "learned" else 0.0)
    yield Broken(
        rule="positions", where=np.greater(tokens, positions), asked="input_tokens + output_tokens",
        value=requests.input_tokens + requests.output_tokens,
        told={"tokens": tokens, "positions": float(positions), "model": deployment.model.name},
        allowed="up to {positions} tokens of model '{model}'",
    )  # fmt: skip
