"""The front end of a deployment's engine, between clients and its scheduler."""

from __future__ import annotations

from dataclasses import dataclass

from graphsim.deployment.deployment import DEFAULT_ENGINE, Deployment


@dataclass(frozen=True, slots=True, kw_only=True)
class Front:
    """Its delays: per request and per prompt token on the way in, and on the way out."""

    request_s: float = 0.0
    token_s: float = 0.0
    reply_s: float = 0.0


def front_of(deployment: Deployment) -> Front:
    """The front end of a deployment's engine.

    Profiles state the total delay of a first token, in and out (`graphsim.lora.host`); it is counted on the way in.
    """
    engine = deployment.under(DEFAULT_ENGINE).engine
    return Front() if engine is None else Front(request_s=engine.host.request_s, token_s=engine.host.token_s)
