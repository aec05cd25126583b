"""A measured configuration whose prompts run on servers of their own, run again in a closed loop."""

from __future__ import annotations

from math import inf

import numpy as np

from graphsim.errors import ConfigError
from graphsim.lora.host import EngineHost
from graphsim.serving.engine_limits import EngineLimits
from graphsim.serving.front import front_of
from graphsim.serving.pricing import price_of
from graphsim.serving.step_price import StepPrice
from graphsim.traffic.table import request_table
from graphsim.validation.prompts_apart import Generators, PromptServers, run_apart
from graphsim.validation.run_figures import Outcome, Replayed
from graphsim.validation.served_loads import deployed_row, lengths_of
from graphsim.validation.served_rows import Pool, ServedRow
from graphsim.validation.servers import Server


def answers_apart(row: ServedRow, name: str, device: str, server: Server) -> Outcome:
    """The requests of a row as its servers answer them. name, device: of model and device in the catalogs."""
    ahead = row.prompts
    if ahead is None or not (ahead.workers and row.pool.workers):
        raise ConfigError("not simulated: how many servers run prompts, and how many generate, is not stated")
    clients, inputs, outputs = lengths_of(row, row.clients)
    generating = row.pool.workers * row.pool.replicas
    mean_prompt, tokens = float(inputs.mean()), int(server.chunk_tokens)

    def price(pool: Pool, sequences: int) -> StepPrice:
        limits = EngineLimits(max_num_batched_tokens=tokens, max_num_seqs=min(sequences, tokens))
        deployed = deployed_row(name, device, pool, server)
        return price_of(deployed, limits, mean_prompt=mean_prompt, samples=row.samples)

    deployment = deployed_row(name, device, row.pool, server)
    host = deployment.engine.host if deployment.engine else EngineHost()
    generators = Generators(
        count=generating, price=price(row.pool, -(-clients // generating)), ahead=host.planned_ahead,
        receive_steps=int(host.receive_steps),
    )  # fmt: skip
    prompts = PromptServers(count=ahead.workers * ahead.replicas, price=price(ahead, clients))
    table = request_table(np.full(len(inputs), np.nan), inputs, outputs)
    log = run_apart(table, clients, prompts, generators, front_of(deployment))
    return Outcome(Replayed(table, log, inf))
