"""What engines refuse of models and requests: encoder-decoders, and more tokens than the model has positions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from graphsim.deployment.refusals.broken import Broken
from graphsim.lora.profile import EngineProfile
from graphsim.units import Num

if TYPE_CHECKING:
    from graphsim.deployment.deployment import Deployment
    from graphsim.deployment.inference import Requests


def of_requests(deployment: Deployment, profile: EngineProfile, requests: Requests) -> Iterator[Broken]:
    """Every rule of requests that a batch of them may break."""
    yield from _positions(deployment, profile, requests)


def of_encoder_decoders(deployment: Deployment, profile: EngineProfile) -> Iterator[Broken]:
    """Models whose decoder attends to an encoder, but those of the kinds that the engine knows."""
    limit, source = profile.limits.get("encoder_decoders"), deployment.model.source_encoder
    if limit is None or source is None or source.kind in limit.but:
        return
    others = f"{', '.join(limit.but)}, or a decoder alone" if limit.but else "a decoder alone"
    yield Broken(
        rule="encoder_decoders", where=True, asked="model", value=deployment.model.name, told={"kind": source.kind},
        allowed=others,
    )  # fmt: skip


def _positions(deployment: Deployment, profile: EngineProfile, requests: Requests) -> Iterator[Broken]:
    """Servers count the prompt and all tokens to be generated; the last of these takes no position of its own."""
    limit, source = profile.limits.get("positions"), deployment.model.source_encoder
    if limit is None or (limit.models == "learned" and not getattr(deployment.model.stem, "positions", 0)):
        return
    total, given = requests.input_tokens + requests.output_tokens, requests.input_tokens
    last = 1.0 if limit.models == "learned" else 0.0
    counted: list[tuple[str, Num, Num, int]] = []
    if source is None:
        counted.append(("input_tokens + output_tokens", total, total - last, deployment.model.max_positions))
    else:
        own = source.own_tokens(given, total)
        counted.append(("output_tokens", requests.output_tokens, own - last, deployment.model.max_positions))
        counted.append(("input_tokens", given, source.rows_of(given), source.max_positions))
    for asked, value, tokens, positions in counted:
        if positions:
            yield Broken(
                rule="positions", where=np.greater(tokens, positions), asked=asked, value=value,
                told={"tokens": tokens, "positions": float(positions), "model": deployment.model.name},
                allowed="up to {positions} tokens of model '{model}'",
            )  # fmt: skip
