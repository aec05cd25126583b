"""Many requests over time on one engine: from a deployment and its traffic to what users of it feel."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from graphsim.cost.base import CostModel
from graphsim.deployment.arguments import deployed
from graphsim.deployment.deployment import DEFAULT_ENGINE, Deployment, EngineRef, HardwareRef, ModelRef
from graphsim.deployment.parallelism import Parallelism
from graphsim.errors import ConfigError, choices_text
from graphsim.lora.config import LoraConfig
from graphsim.ops.precision import Precision
from graphsim.serving.adjusted import checked_constants
from graphsim.serving.engine_limits import EngineLimits
from graphsim.serving.scenario import Progress, Serving
from graphsim.serving.service import Service
from graphsim.traffic.traffic import Traffic
from graphsim.units import checked_number, short

ROUTERS = ("least-loaded", "round-robin", "random")
"""How requests may go to replicas; with one replica, all alike."""


def serve(
    model: ModelRef | Deployment,
    hardware: HardwareRef | Traffic | None = None,
    traffic: Traffic | None = None,
    parallelism: Parallelism | None = None,
    lora: LoraConfig | None = None,
    precision: str | Precision | None = None,
    cost: str | CostModel | None = None,
    engine: EngineRef | None = None,
    limits: EngineLimits | None = None,
    replicas: int = 1,
    router: str = "least-loaded",
    prefill_replicas: int = 0,
    *,
    strategy: str | None = None,
    host: Mapping[str, float] | None = None,
    prefill: Deployment | None = None,
    speculation: Any = None,
    progress: Progress | None = None,
    rows: str | Path | None = None,
) -> Service:
    """Simulate a server under its traffic, request by request.

    model, hardware: as of `simulate`, or one `Deployment` in place of them and of parallelism to engine
    traffic: which requests come, and when (`gs.Traffic`)
    lora: the adapters' rank and targets, and slots (`max_loras`, by default the engine's); traffic with adapters and
        without a LoraConfig is served with rank 16 on attention and MLP
    engine: whose scheduler and kernels, vllm by default; limits: settings by the engine's own flags (`gs.EngineLimits`)
    strategy: `dynamic` (the factors beside the base's kernels); `merged` (one adapter at a time in the weights, with
        switching, `merged:POLICY`); `mixed` (the hottest one merged, the others dynamic); `paged` (adapters in blocks
        of the KV cache); by default dynamic, or merged where `lora.strategy` is `merge`
    host: constants of the host in place of the engine's, such as those that `graphsim serve --measured` fits to own
        runs: request_s, token_s, step_s, step_factor
    progress: called with simulated seconds and requests ended, about ten times a second
    rows: a folder to which requests, adapters and steps go as Parquet
    Ctrl-C ends the run with what was simulated so far (`Service.log.interrupted`).
    Raises ConfigError for what is not allowed or not simulated, InfeasibleError for what cannot be run.
    """
    serving = serving_of(
        model, hardware, traffic, parallelism=parallelism, lora=lora, precision=precision, cost=cost, engine=engine,
        limits=limits, replicas=replicas, router=router, prefill_replicas=prefill_replicas, prefill=prefill,
        speculation=speculation, strategy=strategy, host=host,
    )  # fmt: skip
    service = serving.run(progress)
    if rows is not None:
        service.to_parquet(rows)
    return service


def serving_of(
    model: ModelRef | Deployment,
    hardware: HardwareRef | Traffic | None = None,
    traffic: Traffic | None = None,
    *,
    limits: EngineLimits | None = None,
    replicas: int = 1,
    router: str = "least-loaded",
    prefill_replicas: int = 0,
    prefill: Deployment | None = None,
    speculation: Any = None,
    strategy: str | None = None,
    host: Mapping[str, float] | None = None,
    **described: Any,
) -> Serving:
    """A server and its traffic, from the arguments of `serve`. Raises ConfigError as that does."""
    _refuse(
        replicas=replicas, router=router, prefill_replicas=prefill_replicas, prefill=prefill, speculation=speculation
    )
    if isinstance(hardware, Traffic):
        if traffic is not None:
            raise ConfigError("serve: traffic is given twice, once in the place of hardware")
        hardware, traffic = None, hardware
    if not isinstance(traffic, Traffic):
        given = "is missing" if traffic is None else f"= {short(traffic)} is not a Traffic"
        raise ConfigError(f"serve: traffic {given}; expected gs.Traffic.poisson(…), .closed(…) or .from_file(…)")
    if limits is not None and not isinstance(limits, EngineLimits):
        raise ConfigError(f"serve: limits = {short(limits)} is not an EngineLimits; expected gs.EngineLimits(flag=…)")
    described = {name: described.get(name) for name in ("parallelism", "lora", "precision", "cost", "engine")}
    deployment = deployed(model, hardware, default_engine=DEFAULT_ENGINE, **described)
    if np.any(np.asarray(deployment.parallelism.dp) > 1):
        raise ConfigError(
            f"serve: parallelism.dp = {short(deployment.parallelism.dp)} is not simulated yet; simulate one replica "
            "(dp=1) under its share of the traffic"
        )
    return Serving(
        deployment=deployment, traffic=traffic, limits=limits or EngineLimits(), asked=strategy,
        host=checked_constants(host or {}),
    ).checked()  # fmt: skip


def _refuse(
    *, replicas: Any = 1, router: Any = "least-loaded", prefill_replicas: Any = 0, prefill: Any = None,
    speculation: Any = None,
) -> None:  # fmt: skip
    """Raise ConfigError for what is more than one engine."""
    if checked_number("serve: replicas", replicas, 1, one=True) > 1:
        raise ConfigError(
            f"serve: replicas = {replicas} is not simulated yet; simulate one replica under its share of the traffic"
        )
    if checked_number("serve: prefill_replicas", prefill_replicas, 0, one=True) or prefill is not None:
        raise ConfigError("serve: servers for prefill alone (prefill, prefill_replicas) are not simulated yet")
    if speculation is not None:
        raise ConfigError("serve: speculation is not simulated yet")
    if router not in ROUTERS:
        raise ConfigError(f"serve: router = {short(router)} is not known; {choices_text(router, ROUTERS)}")
