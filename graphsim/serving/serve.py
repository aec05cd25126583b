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
from graphsim.serving.disaggregated.asked import apart_from, is_apart
from graphsim.serving.engine_limits import EngineLimits
from graphsim.serving.fleet.options import DEFAULT_ROUTER, FleetOptions, fleet_options
from graphsim.serving.fleet.scaling import Scaling
from graphsim.serving.scenario import Progress, Serving
from graphsim.serving.service import Service
from graphsim.speculation.speculation import Speculation, checked_speculation
from graphsim.traffic.traffic import Traffic
from graphsim.units import short

DESCRIBED = ("parallelism", "lora", "precision", "cost", "engine")
OPTIONS = ("limits", "replicas", "router", "view_age_s", "scaling", "strategy", "host")
"""What a server is described by, and how it is run: arguments that `capacity` and others pass on."""


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
    router: Any = DEFAULT_ROUTER,
    prefill_replicas: int = 0,
    *,
    view_age_s: float = 0.0,
    scaling: Scaling | None = None,
    strategy: str | None = None,
    host: Mapping[str, float] | None = None,
    prefill: Deployment | None = None,
    prefill_limits: EngineLimits | None = None,
    transfer: Any = None,
    speculation: Speculation | None = None,
    progress: Progress | None = None,
    rows: str | Path | None = None,
) -> Service:
    """Simulate a server under its traffic, request by request.

    model, hardware: as in `simulate`; or a `Deployment`, which also sets parallelism, lora, precision, cost and engine
    traffic: the requests and when they arrive (`gs.Traffic`); parallelism, precision, cost: as in `simulate`
    lora: the adapters' rank and targets, and the number of slots (`max_loras`, by default the engine's); if the traffic
        has adapters and there is no LoraConfig, rank 16 on attention and MLP
    engine: whose scheduler and kernels are simulated, vllm by default; limits: settings by the engine's own flags
    replicas: number of identical servers; with more than one the result is a `FleetService`
    router: a name (`graphsim.serving.fleet.registry.ROUTERS`) or your own object
    prefill_replicas: number of separate workers that compute prompts; `replicas` then counts decode workers
    view_age_s: seconds between the router's readings of the replicas' metrics (llm-d 0.05, Prometheus often 15)
    scaling: how replicas are added and removed with the load (`graphsim.serving.fleet.scaling.Scaling`)
    strategy: `dynamic` (factors in addition to the base's kernels); `merged` (one adapter at a time in the weights,
        with switching, `merged:POLICY`); `mixed` (the most requested adapter merged, the others dynamic); `paged`
        (adapters in blocks of the KV cache); by default dynamic, or merged where `lora.strategy` is `merge`
    host: host times in place of the engine's, as `graphsim serve --measured` fits them to measured runs
    prefill: deployment of the prefill workers, by default the same; prefill_limits: settings of their engine
    transfer: how keys and values travel (`gs.Transfer`), by default over the nearest link that connects all workers
    speculation: a draft whose tokens the model verifies; each step then yields a random number of tokens per sequence,
        and gaps between tokens (itl) are those between steps
    progress: called with simulated seconds and requests ended, about ten times a second
    rows: a folder to which requests, adapters and steps are written as Parquet
    Ctrl-C ends the run with what was simulated so far (`Service.log.interrupted`).
    Raises ConfigError for an argument that is not allowed or not simulated, InfeasibleError for what cannot be run.
    """
    serving = serving_of(
        model, hardware, traffic, parallelism=parallelism, lora=lora, precision=precision, cost=cost, engine=engine,
        limits=limits, replicas=replicas, router=router, view_age_s=view_age_s, scaling=scaling,
        prefill_replicas=prefill_replicas, prefill=prefill, prefill_limits=prefill_limits, transfer=transfer,
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
    router: Any = DEFAULT_ROUTER,
    view_age_s: float = 0.0,
    scaling: Scaling | None = None,
    prefill_replicas: int = 0,
    prefill: Deployment | None = None,
    prefill_limits: EngineLimits | None = None,
    transfer: Any = None,
    speculation: Speculation | None = None,
    strategy: str | None = None,
    host: Mapping[str, float] | None = None,
    **described: Any,
) -> Serving:
    """A server and its traffic, from the arguments of `serve`. Raises ConfigError as that does."""
    apart = is_apart(prefill, prefill_replicas, prefill_limits=prefill_limits, transfer=transfer)
    fleet = fleet_options(replicas, router, view_age_s, scaling)
    if isinstance(hardware, Traffic):
        if traffic is not None:
            raise ConfigError("serve: traffic is given twice, once in place of hardware")
        hardware, traffic = None, hardware
    if not isinstance(traffic, Traffic):
        given = "is missing" if traffic is None else f"= {short(traffic)} is not a Traffic"
        raise ConfigError(f"serve: traffic {given}; expected gs.Traffic.poisson(…), .closed(…) or .from_file(…)")
    if limits is not None and not isinstance(limits, EngineLimits):
        raise ConfigError(f"serve: limits = {short(limits)} is not an EngineLimits; expected gs.EngineLimits(flag=…)")
    if (unknown := next((name for name in described if name not in DESCRIBED), None)) is not None:
        raise ConfigError(f"serve: {unknown} is not known; {choices_text(unknown, (*DESCRIBED, *OPTIONS))}")
    described = {name: described.get(name) for name in DESCRIBED}
    deployment = deployed(model, hardware, default_engine=DEFAULT_ENGINE, **described)
    if np.any(np.asarray(deployment.parallelism.dp) > 1):
        raise ConfigError(
            f"serve: parallelism.dp = {short(deployment.parallelism.dp)} is not simulated; simulate replicas (dp=1, "
            "replicas=N) behind a router"
        )
    serving = Serving(
        deployment=deployment, traffic=traffic, limits=limits or EngineLimits(), asked=strategy,
        host=checked_constants(host or {}), speculation=checked_speculation(speculation),
        fleet=FleetOptions() if apart else fleet,
    )  # fmt: skip
    if apart:
        _refuse_beside_prefill(view_age_s=view_age_s, scaling=scaling)
        return apart_from(
            serving, prefill, prefill_replicas, replicas, prefill_limits=prefill_limits, router=router,
            transfer=transfer,
        ).checked()  # fmt: skip
    return serving.checked()


def _refuse_beside_prefill(**given: Any) -> None:
    """Raise ConfigError for what workers that share prompts and generation do not take."""
    for name, value in given.items():
        if value:
            raise ConfigError(f"serve: {name} is not simulated together with prefill_replicas; leave one out")
