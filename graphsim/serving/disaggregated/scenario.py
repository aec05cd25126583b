"""A disaggregated server and its traffic: one question, its variations, and the run that answers it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from math import inf
from typing import Any

from graphsim.deployment.deployment import DEFAULT_ENGINE, Deployment
from graphsim.errors import ConfigError
from graphsim.result import plain
from graphsim.serving.adjusted import AdjustedPrice
from graphsim.serving.disaggregated.hand_off import HandOff, hand_off_of
from graphsim.serving.disaggregated.layout import check_alike, layout_of
from graphsim.serving.disaggregated.placing import PLACINGS, check_placing
from graphsim.serving.disaggregated.run import Pool, run_pools
from graphsim.serving.disaggregated.service import DisaggregatedService
from graphsim.serving.disaggregated.transfer import Transfer, TransferPlan, way_between
from graphsim.serving.engine_limits import EngineLimits
from graphsim.serving.requirements import strategy_text
from graphsim.serving.scenario import Progress, Serving
from graphsim.serving.service import Service
from graphsim.serving.step_price import StepPrice
from graphsim.traffic.parts import Open


@dataclass(frozen=True, kw_only=True, eq=False)
class DisaggregatedServing(Serving):
    """A server with separate workers for prompts, and its traffic.

    deployment, limits: those of a decode worker; prefill, prefill_limits: those of a prefill worker
    prefill_replicas, replicas: number of prefill and of decode workers
    router: how requests are assigned to workers, a name of PLACINGS
    transfer: how keys and values travel
    Other fields: as in `Serving`.
    """

    prefill: Deployment
    prefill_replicas: int = 1
    replicas: int = 1
    prefill_limits: EngineLimits | None = None
    router: str = PLACINGS[0]
    transfer: Transfer = Transfer()

    @cached_property
    def prompts(self) -> Serving:
        """A prefill worker, as a server of the same traffic."""
        lora = self.deployment.lora if self.prefill.lora is None else self.prefill.lora
        return Serving(
            deployment=replace(self.prefill, lora=lora), traffic=self.traffic,
            limits=self.limits if self.prefill_limits is None else self.prefill_limits, asked=self.asked,
            most=self.most, host=self.host,
        )  # fmt: skip

    @property
    def hand_off(self) -> HandOff:
        """The engine's rules."""
        engine = self.deployment.under(DEFAULT_ENGINE).engine
        return hand_off_of(engine.scheduler.flags if engine is not None else DEFAULT_ENGINE)

    @cached_property
    def way(self) -> TransferPlan:
        """The transfer path from prefill workers to decode workers."""
        prefill, decode = self.prompts.deployment.under(DEFAULT_ENGINE), self.deployment.under(DEFAULT_ENGINE)
        return way_between(
            prefill, decode, (layout_of(prefill), layout_of(decode)), self.hand_off, self.transfer,
            workers=(self.prefill_replicas, self.replicas), block_tokens=self.rules.block_tokens,
            chunk_tokens=self.prompts.rules.piece_tokens,
        )  # fmt: skip

    def run(self, progress: Progress | None = None) -> Service:
        """Simulate it."""
        prompts, traffic, deployment = self.prompts, self.traffic, self.deployment
        logs = run_pools(
            self.table,
            Pool(
                rules=prompts.rules, price=self._adjusted(prompts.price), workers=self.prefill_replicas,
                store=lambda: prompts.store,
            ),
            Pool(rules=self.rules, price=self._adjusted(self.price), workers=self.replicas, store=lambda: self.store),
            self.way, client=traffic.client, concurrency=traffic.concurrency, front=self.front, router=self.router,
            progress=progress,
        )  # fmt: skip
        limited = traffic.client.connections
        return DisaggregatedService(
            table=self.table, log=logs.whole, rules=self.rules, model=deployment.model.name,
            hardware=deployment.device.name, engine=deployment.under(DEFAULT_ENGINE).engine_name,
            settings=self.settings, adapter_names=traffic.adapters, classes=self.classes,
            request_rate=traffic.request_rate or inf,
            burstiness=traffic.source.burstiness if isinstance(traffic.source, Open) else 1.0,
            concurrency=traffic.concurrency or (None if limited == inf else int(limited)),
            open_loop=traffic.concurrency is None, notes=self.notes, again=self._with_longer_steps,
            step_factors=self.step_factors, logs=logs, prefill_rules=prompts.rules,
            prefill_name=_named(prompts.deployment), decode_name=_named(deployment),
        )  # fmt: skip

    def _adjusted(self, price: StepPrice) -> StepPrice:
        step = {name: value for name, value in self.host.items() if name.startswith("step")}
        return AdjustedPrice(price, **step) if step else price

    @property
    def settings(self) -> dict[str, Any]:
        """The settings, as plain values."""
        ahead = self.prompts
        return super().settings | {
            "router": self.router, "replicas": self.replicas, "prefill_replicas": self.prefill_replicas,
            "prefill_hardware": ahead.deployment.device.name, "prefill_tp": plain(ahead.deployment.parallelism.tp),
            "prefill_limits": dict(ahead.limits.given), "transfer_link": self.way.link,
            "transfer_bytes_per_s": self.way.bytes_per_s, "transfer_overlap": self.way.hand_off.overlap,
        }  # fmt: skip

    @property
    def notes(self) -> tuple[str, ...]:
        """Assumptions and caveats."""
        link, rate = self.way.link, self.way.bytes_per_s
        told = "no time but its set-up" if rate == inf else f"{rate / 1e9:.3g} GB/s for each device"
        return (*super().notes, f"keys and values go over {link}, {told}")

    def checked(self) -> DisaggregatedServing:
        """Check both pools as `Serving` does. Raises ConfigError if one cannot hand over to the other."""
        found = super().checked()
        if not isinstance(found, DisaggregatedServing):  # pragma: no cover
            raise TypeError("a variation of a disaggregated server is one itself")
        _check_strategy(found)
        check_placing(found.router)
        prompts = found.prompts.checked()
        check_alike(prompts.deployment, found.deployment)
        found.__dict__["prompts"] = prompts
        return found

    def _but(self, *kept: str, **changes: Any) -> DisaggregatedServing:
        found = replace(self, **changes)
        found.__dict__.update({name: self.__dict__[name] for name in kept if name in self.__dict__})
        return found


def _check_strategy(serving: DisaggregatedServing) -> None:
    if serving.adapters and serving.strategy != "dynamic":
        raise ConfigError(
            f"strategy = {strategy_text(serving.strategy)} is not simulated with prefill workers; allowed: dynamic "
            "(adapters of both pools take turns in slots)"
        )


def _named(deployment: Deployment) -> str:
    """`h200-sxm, tp 2`."""
    degrees = deployment.parallelism
    told = [
        f"{name} {plain(value)}" for name in ("tp", "pp", "ep", "cp") if plain(value := getattr(degrees, name)) != 1
    ]
    return ", ".join([deployment.device.name, *told])
