"""The deployment of a row of a serving benchmark, and the lengths of its requests."""

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
"""Largest number of requests of a loop with very many clients: all rounds from the second on are equal."""

Lengths = np.ndarray[Any, np.dtype[np.int64]]


def lengths_of(row: ServedRow, clients: int) -> tuple[int, Lengths, Lengths]:
    """Number of clients (at least 1), and prompt and answer lengths, uniform from range_ratio times the stated one."""
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
    """The deployment of one pool, without the engine's checks, as it is known to have run.

    settings: settings of the engine's host, in place of those of the start-up script

    """
    host = dict(server.settings if settings is None else settings)
    return Deployment(
        name, device, parallelism=Parallelism(tp=pool.tp, ep=pool.ep, pp=pool.pp), precision=server.precision,
        engine=load_profile({"base": server.engine, "notes_only": True, "host": host}),
    )  # fmt: skip
