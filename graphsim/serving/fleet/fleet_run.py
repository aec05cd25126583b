"""A deployment's replicas behind a router, under one traffic."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from graphsim.deployment.deployment import Deployment
from graphsim.serving.adapter_store import AdapterStore
from graphsim.serving.driven_engine import DrivenEngine
from graphsim.serving.fleet.fleet_loop import FleetLoop
from graphsim.serving.fleet.fleet_service import FleetService
from graphsim.serving.fleet.options import FleetOptions
from graphsim.serving.fleet.registry import router_of
from graphsim.serving.fleet.router import FleetFacts
from graphsim.serving.fleet.scaler import Scaler
from graphsim.serving.fleet.scaling import Scaling, weights_load_s
from graphsim.serving.front import Front
from graphsim.serving.loop import Progress
from graphsim.serving.rules import Rules
from graphsim.serving.run_log import RunLog
from graphsim.serving.step_price import StepPrice
from graphsim.serving.table_checks import check_table
from graphsim.serving.weights import Weights
from graphsim.traffic.client import Client
from graphsim.traffic.table import RequestTable
from graphsim.traffic.traffic import Traffic


class Server(Protocol):
    """A server and its traffic (`graphsim.serving.scenario.Serving`)."""

    @property
    def deployment(self) -> Deployment:
        """The deployment of each replica."""

    @property
    def traffic(self) -> Traffic:
        """The traffic."""

    @property
    def fleet(self) -> FleetOptions:
        """The number of replicas, and their router."""

    @property
    def table(self) -> RequestTable:
        """The requests."""

    @property
    def rules(self) -> Rules:
        """The scheduler's rules in each engine."""

    @property
    def front(self) -> Front:
        """The front end between the router and each engine."""

    @property
    def store(self) -> AdapterStore | None:
        """A replica's adapter store at its start."""

    @property
    def weights(self) -> Weights | None:
        """A replica's strategy for merged weights."""

    @property
    def adapters(self) -> int:
        """Number of registered adapters."""

    @property
    def run_price(self) -> StepPrice:
        """Times of steps and loads."""

    @property
    def told(self) -> Mapping[str, Any]:
        """The fields of a `Service` other than its log."""


def run_fleet(server: Server, progress: Progress | None = None) -> FleetService:
    """Simulate it. Raises ConfigError for a router that cannot be used with these adapters or replicas."""
    loop, scaler = fleet_loop(server)
    loop.run(progress)
    return FleetService(
        log=loop.log, replica=loop.replica, router=server.fleet.router_name, spans=() if scaler is None else tuple(
            (start, end) for start, end in scaler.spans
        ), history=() if scaler is None else tuple(scaler.history),
        logs=tuple(member.driven.log for member in loop.members), devices=int(server.deployment.parallelism.devices),
        **server.told,
    )  # fmt: skip


def fleet_loop(server: Server) -> tuple[FleetLoop, Scaler | None]:
    """The loop at its start, of one replica or more."""
    rules, traffic, fleet = server.rules, server.traffic, server.fleet
    check_table(server.table, rules, traffic.concurrency)
    price, front = server.run_price, server.front

    def make(log: RunLog, client: Client, tell: Callable[[int, float, bool], None]) -> DrivenEngine:
        return DrivenEngine(
            rules, price, log=log, client=client, reply_s=front.reply_s, store=server.store, weights=server.weights,
            tell=tell,
        )  # fmt: skip

    facts = FleetFacts(
        replicas=fleet.replicas, adapters=server.adapters, slots=rules.adapters.max_loras if server.adapters else 0,
        max_num_seqs=rules.max_num_seqs, kv_blocks=rules.kv_blocks, block_tokens=rules.block_tokens, seed=traffic.seed,
        ranks=tuple(traffic.ranks or ()),
    )  # fmt: skip
    scaler = (
        None if fleet.scaling is None else Scaler(fleet.scaling, fleet.replicas, cold_start_s(server, fleet.scaling))
    )
    loop = FleetLoop(
        server.table, make, fleet.replicas, router_of(fleet.router), client=traffic.client, front=front,
        concurrency=traffic.concurrency, block_tokens=rules.block_tokens, facts=facts, view_age_s=fleet.view_age_s,
        scaler=scaler,
    )  # fmt: skip
    return loop, scaler


def cold_start_s(server: Server, scaling: Scaling) -> float:
    """Seconds from the decision to add a replica until it takes requests."""
    own = weights_load_s(server.deployment) if scaling.cold_start_s is None else scaling.cold_start_s
    return own + scaling.start_s
