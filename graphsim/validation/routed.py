"""A measured run of several replicas, simulated behind its router."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy

from graphsim.errors import ConfigError
from graphsim.serving.adapter_store import AdapterStore
from graphsim.serving.driven_engine import DrivenEngine
from graphsim.serving.fleet.fleet_loop import FleetLoop
from graphsim.serving.fleet.router import FleetFacts
from graphsim.serving.front import Front
from graphsim.serving.rules import Rules
from graphsim.serving.run_log import RunLog
from graphsim.serving.step_price import StepPrice
from graphsim.traffic.client import Client
from graphsim.traffic.table import RequestTable
from graphsim.validation.measured_run import Served


def routed(
    table: RequestTable, rules: Rules, price: StepPrice, served: Served, front: Front,
    store: Callable[[], AdapterStore | None],
) -> RunLog:  # fmt: skip
    """Outcome of the requests.

    store: creates a replica's adapter store
    Raises ConfigError if there is no router.
    """
    if served.router is None:
        raise ConfigError("several replicas need a router")

    def make(log: RunLog, client: Client, tell: Callable[[int, float, bool], None]) -> DrivenEngine:
        return DrivenEngine(rules, price, log=log, client=client, reply_s=front.reply_s, store=store(), tell=tell)

    facts = FleetFacts(
        replicas=served.replicas, adapters=int(table.adapter.max()) + 1, slots=rules.adapters.max_loras,
        max_num_seqs=rules.max_num_seqs, kv_blocks=rules.kv_blocks, block_tokens=rules.block_tokens,
    )  # fmt: skip
    loop = FleetLoop(
        table, make, served.replicas, deepcopy(served.router), client=served.client, front=front,
        concurrency=served.concurrency, block_tokens=rules.block_tokens, facts=facts,
    )  # fmt: skip
    loop.run()
    return loop.log
