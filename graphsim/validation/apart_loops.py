"""A measured configuration with separate prefill workers, simulated in a closed loop."""

from __future__ import annotations

from dataclasses import replace
from math import inf

import numpy as np

from graphsim.deployment.deployment import Deployment
from graphsim.errors import ConfigError, InfeasibleError
from graphsim.serving.adjusted import AdjustedPrice
from graphsim.serving.disaggregated.hand_off import hand_off_of
from graphsim.serving.disaggregated.layout import layout_of
from graphsim.serving.disaggregated.run import Pool as Workers
from graphsim.serving.disaggregated.run import run_pools
from graphsim.serving.disaggregated.transfer import Transfer, way_between
from graphsim.serving.engine_limits import EngineLimits
from graphsim.serving.engine_rules import rules_of
from graphsim.serving.front import front_of
from graphsim.serving.pricing import price_of
from graphsim.serving.rules import Rules
from graphsim.serving.speculative import speculator_of
from graphsim.serving.step_price import StepPrice
from graphsim.speculation.speculation import Speculation
from graphsim.traffic.table import request_table
from graphsim.validation.exchanges import exchange_s
from graphsim.validation.run_figures import Outcome, Replayed
from graphsim.validation.served_loads import deployed_row, lengths_of
from graphsim.validation.served_rows import Pool, ServedRow
from graphsim.validation.servers import Server

ENOUGH_TOKENS = 10**9
"""Size of a cache larger than any load here, for a server that ran although its memory is estimated as insufficient."""


def answers_apart(row: ServedRow, name: str, device: str, server: Server) -> Outcome:
    """The requests of a row, as answered by its workers.

    name: the model's name in the catalog
    device: the device's name in the catalog
    Attention replicas have separate requests, so each counts as a worker.
    """
    ahead = row.prompts
    if ahead is None or not (ahead.workers and row.pool.workers):
        raise ConfigError("not simulated: how many servers run prompts, and how many generate, is not stated")
    clients, inputs, outputs = lengths_of(row, row.clients)
    table = request_table(np.full(len(inputs), np.nan), inputs, outputs)
    prompts, answers = (deployed_row(name, device, pool, server) for pool in (ahead, row.pool))
    counts = ahead.workers * ahead.replicas, row.pool.workers * row.pool.replicas
    first, second = (
        _workers(row, deployment, pool, server, clients, float(inputs.mean()), speculation)
        for deployment, pool, speculation in ((prompts, ahead, None), (answers, row.pool, row.speculation))
    )
    flags = answers.engine.scheduler.flags if answers.engine else ""
    way = way_between(
        prompts, answers, (layout_of(prompts), layout_of(answers)), hand_off_of(flags), Transfer(), workers=counts,
        block_tokens=second.rules.block_tokens, chunk_tokens=first.rules.max_num_batched_tokens,
    )  # fmt: skip
    logs = run_pools(table, first, second, way, concurrency=clients, front=front_of(answers))
    return Outcome(Replayed(table, logs.whole, inf))


def _workers(
    row: ServedRow, deployment: Deployment, pool: Pool, server: Server, clients: int, mean_prompt: float,
    speculation: Speculation | None,
) -> Workers:  # fmt: skip
    """One of the pools: a worker has an equal share of the clients on average, and capacity for all of them."""
    count, tokens = pool.workers * pool.replicas, int(server.chunk_tokens)
    limits = EngineLimits(
        max_num_batched_tokens=tokens, max_num_seqs=max(min(-(-clients // count), tokens), 1), prefix_cache=False
    )
    rules = _rules(deployment, limits)
    price: StepPrice = price_of(deployment, limits, mean_prompt=mean_prompt, samples=row.samples)
    if (speculator := speculator_of(speculation, deployment)) is not None:
        rules = speculator.rules(rules, deployment, limits)
        price = speculator.price(price, deployment, limits, (), mean_prompt)
    if (more_s := exchange_s(row, pool, deployment)) > 0.0:
        price = AdjustedPrice(price, step_s=more_s)
    return Workers(rules=replace(rules, max_num_seqs=clients), price=price, workers=count)


def _rules(deployment: Deployment, limits: EngineLimits) -> Rules:
    try:
        return rules_of(deployment, limits)
    except InfeasibleError:
        return rules_of(deployment, limits.but(kv_tokens=ENOUGH_TOKENS))
