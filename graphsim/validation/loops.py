"""A measured configuration simulated in a closed loop, with the rules and prices of its deployment and engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from graphsim.errors import ConfigError, InfeasibleError
from graphsim.hardware import load_hardware
from graphsim.models.loading import load_model
from graphsim.serving.engine_limits import EngineLimits
from graphsim.serving.engine_rules import rules_of
from graphsim.serving.front import Front, front_of
from graphsim.serving.loop import run
from graphsim.serving.pricing import price_of
from graphsim.serving.rules import Rules
from graphsim.serving.speculative import speculator_of
from graphsim.serving.step_price import StepPrice
from graphsim.traffic.table import RequestTable, request_table
from graphsim.validation.apart_loops import answers_apart
from graphsim.validation.run_figures import Outcome, Replayed
from graphsim.validation.served_loads import deployed_row, lengths_of
from graphsim.validation.served_rows import ServedRow
from graphsim.validation.servers import Server, server_of
from graphsim.validation.validate import hardware_name

COPIES = {
    "nvidia/DeepSeek-R1-0528-FP4-V2": "deepseek-ai/DeepSeek-R1-0528",
    "amd/DeepSeek-R1-0528-MXFP4-Preview": "deepseek-ai/DeepSeek-R1-0528",
}
"""The original model of quantised copies, by the copy's name; the row states the format."""

ENOUGH_TOKENS = 10**9
"""Size of a cache larger than any load here, for a server that ran although its memory is estimated as insufficient."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Prepared:
    """A row ready to be run.

    rules: of the scheduler
    price: of a step
    front: the server's front end
    clients: clients of one replica; replicas run in lockstep
    table: the clients' requests
    """

    rules: Rules
    price: StepPrice
    front: Front
    clients: int
    table: RequestTable

    def answers(self, request_s: float | None = None) -> Outcome:
        """The answered requests.

        request_s: seconds per request in place of the front end's own, None to keep them
        """
        front = self.front if request_s is None else replace(self.front, request_s=request_s)
        log = run(self.table, self.rules, self.price, concurrency=self.clients, front=front)
        return Outcome(Replayed(self.table, log, self.rules.kv_blocks))


def answers_of(row: ServedRow) -> Outcome:
    """The requests of a row, as answered by its server. Raises ConfigError as `prepared` does."""
    if row.prompts is None:
        return prepared(row).answers()
    if row.problem:
        raise ConfigError(row.problem)
    name, device, server = _served(row)
    return answers_apart(row, name, device, server)


def prepared(row: ServedRow, constants: Mapping[str, float] | None = None) -> Prepared:
    """A row with its deployment's rules and prices.

    constants: constants of the engine's host, in place of its own
    Raises ConfigError with the reason for a row that cannot be simulated.
    """
    if row.problem:
        raise ConfigError(row.problem)
    name, device, server = _served(row)
    deployment = deployed_row(name, device, row.pool, server, {**server.settings, **(constants or {})})
    speculator = speculator_of(row.speculation, deployment)
    clients, inputs, outputs = lengths_of(row, -(-row.clients // row.pool.replicas))
    tokens = int(server.chunk_tokens)
    limits = EngineLimits(max_num_batched_tokens=tokens, max_num_seqs=min(clients, tokens), prefix_cache=False)
    try:
        rules = rules_of(deployment, limits)
    except InfeasibleError:
        rules = rules_of(deployment, limits.but(kv_tokens=ENOUGH_TOKENS))
    mean_prompt = float(inputs.mean())
    price: StepPrice = price_of(deployment, limits, mean_prompt=mean_prompt, samples=row.samples)
    if speculator is not None:
        rules = speculator.rules(rules, deployment, limits)
        price = speculator.price(price, deployment, limits, (), mean_prompt)
    return Prepared(
        rules=rules, front=front_of(deployment), clients=clients, price=price,
        table=request_table(np.full(len(inputs), np.nan), inputs, outputs),
    )  # fmt: skip


def _served(row: ServedRow) -> tuple[str, str, Server]:
    """Catalog names of model and device, and the settings of the start-up script."""
    device, name = hardware_name(row.gpu), COPIES.get(row.model, row.model)
    return name, device, server_of(row, load_model(name), load_hardware(device))
