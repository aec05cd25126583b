"""What a row of a served benchmark runs on, and the lengths that its clients ask for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from graphsim.deployment.deployment import Deployment
from graphsim.deployment.parallelism import Parallelism
from graphsim.lora.profile import load_profile
from graphsim.validation.served_rows import Pool, ServedRow
from graphsim.validation.servers import Server

ENOUGH_REQUESTS = 4096
"""Requests after which a loop with very many clients ends: rounds are alike from the second on."""

Lengths = np.ndarray[Any, np.dtype[np.int64]]


def lengths_of(row: ServedRow, clients: int) -> tuple[int, Lengths, Lengths]:
    """Clients, one at least, and the prompts and answers of their requests, uniform from range_ratio of the stated."""
    clients = max(1, clients)
    per_client = max(1, min(row.per_client, max(2, ENOUGH_REQUESTS // clients)))
    draw = np.random.default_rng(0)
    inputs, outputs = (
        draw.integers(max(1, int(row.range_ratio * most)), max(1, int(most)) + 1, clients * per_client)
        for most in (row.input_tokens, row.output_tokens)
    )
    return clients, inputs, outputs


def deployed_row(
    name: str, device: str, pool: Pool, server: Server, settings: Mapping[str, Any] | None = None
) -> Deployment:
    """The deployment of one pool, whatever its engine refuses today: it has run.

    settings: of the engine's host in place of the start-up script's
    """
    host = dict(server.settings if settings is None else settings)
    return Deployment(
        name, device, parallelism=Parallelism(tp=pool.tp, ep=pool.ep, pp=pool.pp), precision=server.precision,
        engine=load_profile({"base": server.engine, "notes_only": True, "host": host}),
    )  # fmt: skip
