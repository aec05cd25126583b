"""A server and its traffic: one question, its variations, and the run that answers it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import inf
from typing import Any, cast

import numpy as np

from graphsim.analysis.lifecycle import lifecycle_of
from graphsim.deployment.deployment import DEFAULT_ENGINE, Deployment
from graphsim.errors import ConfigError
from graphsim.result import plain
from graphsim.serving.adapter_store import AdapterStore
from graphsim.serving.adjusted import AdjustedPrice
from graphsim.serving.attention_replicas import price_of_all, rules_of_all
from graphsim.serving.bottlenecks import Bottlenecks, bottlenecks
from graphsim.serving.engine_limits import EngineLimits
from graphsim.serving.engine_rules import served
from graphsim.serving.fleet.fleet_run import run_fleet
from graphsim.serving.fleet.fleet_service import FleetService
from graphsim.serving.fleet.options import FleetOptions
from graphsim.serving.front import Front, front_of
from graphsim.serving.goodput import NAMES, Limits
from graphsim.serving.loop import run
from graphsim.serving.paging import PagedStore
from graphsim.serving.pricing import price_of
from graphsim.serving.requirements import (
    as_served,
    cautions,
    check_lengths,
    check_ranks,
    check_strategy,
    largest_rank,
    merging_notes,
    strategy_of,
    with_adapters_of,
)
from graphsim.serving.rules import Rules
from graphsim.serving.service import Service
from graphsim.serving.speculative import Speculator, speculative_rules, speculator_of
from graphsim.serving.step_price import StepPrice
from graphsim.serving.strategies import weights_for
from graphsim.serving.unified import unified_rules, unified_terms
from graphsim.serving.variations import Variations
from graphsim.serving.weights import MergedPrice, MergeTimes, Weights, WeightTimes
from graphsim.simulation import simulate
from graphsim.speculation.notes import notes_of
from graphsim.speculation.speculation import Speculation
from graphsim.traffic.parts import Open
from graphsim.traffic.table import BASE, RequestTable
from graphsim.traffic.trace import first_rows
from graphsim.traffic.traffic import Traffic

Progress = Callable[[float, int], None]
"""Called with simulated seconds and requests ended, some times a second."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Serving(Variations):
    """A server and its traffic.

    deployment, limits: the engine, and its settings
    traffic: the requests
    most: use only the first of them
    asked: how adapters are served, a strategy and its policy; None for dynamic, or merged where `lora.strategy` says so
    host: constants of the host, fitted to own runs, in place of the engine's (`graphsim.serving.adjusted.CONSTANTS`)
    speculation: the draft whose tokens the model verifies
    assumed: sentences on assumptions
    fleet: number of replicas, and how requests are sent to them
    """

    deployment: Deployment
    traffic: Traffic
    limits: EngineLimits = EngineLimits()
    asked: str | None = None
    most: int | None = None
    host: Mapping[str, float] = field(default_factory=dict)
    assumed: tuple[str, ...] = ()
    fleet: FleetOptions = FleetOptions()
    speculation: Speculation | None = None

    @cached_property
    def table(self) -> RequestTable:
        """The requests."""
        whole = self.traffic.table()
        return whole if self.most is None or self.most >= len(whole) else first_rows(whole, self.most)

    @cached_property
    def rules(self) -> Rules:
        """The scheduler's rules."""
        ranks = self.traffic.ranks or ()
        if self.strategy == "unified" and self.adapters:
            rules = unified_rules(self.deployment, self.adapters, self.limits, ranks)[0]
        else:
            rules = speculative_rules(self.speculator, self.deployment, self.limits, ranks)
        return rules_of_all(rules, self.attention_replicas)

    @property
    def attention_replicas(self) -> int:
        """Parts of the server that share its experts and have requests of their own."""
        return int(self.deployment.parallelism.attention_replicas)

    @cached_property
    def speculator(self) -> Speculator | None:
        """The draft; None without one."""
        return speculator_of(self.speculation, self.deployment)

    @property
    def store(self) -> AdapterStore | None:
        """Where adapters are, as the server starts; None where there are none."""
        ranks = self.traffic.ranks
        if not self.adapters:
            return None
        if self.strategy == "unified":
            blocks = unified_rules(self.deployment, self.adapters, self.limits, ranks or ())[1]
            return PagedStore(self.rules.adapters, self.price.load, blocks)
        return AdapterStore(self.rules.adapters, self.price.load, ranks or (1,) * self.adapters)

    @cached_property
    def price(self) -> StepPrice:
        """Times of steps and loads."""
        return price_of_all(self._replica_price, self.attention_replicas)

    @property
    def _replica_price(self) -> StepPrice:
        """The same of one attention replica."""
        mean_prompt = float(self.table.input_tokens.mean()) if len(self.table) else 1.0
        adapter = self.table.adapter
        adapted = adapter[adapter != BASE]
        deployment, limits = self.deployment, self.limits
        if self.strategy == "unified" and self.adapters:
            deployment, limits = unified_terms(deployment, self.adapters, limits)
        own: StepPrice = price_of(
            deployment, limits, ranks=self.traffic.ranks or (), mean_prompt=mean_prompt,
            shares=np.bincount(adapted, minlength=self.adapters).tolist() if len(adapted) else (),
            adapter_share=len(adapted) / len(adapter) if len(adapted) else None,
        )  # fmt: skip
        if self.speculator is not None:
            return self.speculator.price(own, deployment, limits, self.traffic.ranks or (), mean_prompt)
        if self.strategy not in ("mixed", "merged:credits"):
            return own
        base = price_of(replace(self.deployment, lora=None), self._base_limits, mean_prompt=mean_prompt)
        return MergedPrice(base, own)

    @property
    def _base_limits(self) -> EngineLimits:
        """Settings without those of adapters."""
        return EngineLimits(**{name: value for name, value in self.limits.given.items() if "lora" not in name})

    @property
    def weights(self) -> Weights | None:
        """What changes the weights during a run; None where nothing does."""
        if self.strategy in ("dynamic", "unified") or not self.adapters:
            return None
        return weights_for(self.strategy, WeightTimes.of(cast("MergeTimes", lifecycle_of(self.deployment))))

    @property
    def run_price(self) -> StepPrice:
        """As the host's constants change it."""
        step = {name: value for name, value in self.host.items() if name.startswith("step")}
        return AdjustedPrice(self.price, **step) if step else self.price

    def run(self, progress: Progress | None = None) -> Service:
        """Simulate it."""
        if self.fleet.is_fleet:
            return run_fleet(self, progress)
        traffic = self.traffic
        log = run(
            self.table, self.rules, self.run_price, client=traffic.client, concurrency=traffic.concurrency,
            front=self.front, store=self.store, weights=self.weights, progress=progress,
        )  # fmt: skip
        return Service(log=log, **self.told)

    @property
    def told(self) -> dict[str, Any]:
        """The fields of a `Service` other than its log."""
        deployment, traffic = self.deployment, self.traffic
        source, limited = traffic.source, traffic.client.connections
        return {
            "table": self.table, "rules": self.rules, "model": deployment.model.name,
            "hardware": deployment.device.name, "engine": deployment.under(DEFAULT_ENGINE).engine_name,
            "settings": self.settings, "adapter_names": traffic.adapters, "classes": self.classes,
            "request_rate": traffic.request_rate or inf,
            "burstiness": source.burstiness if isinstance(source, Open) else 1.0,
            "concurrency": traffic.concurrency or (None if limited == inf else int(limited)),
            "open_loop": traffic.concurrency is None, "notes": self.notes, "again": self._with_longer_steps,
            "step_factors": self.step_factors,
        }  # fmt: skip

    def _with_longer_steps(self, factor: float) -> Service:
        return self.with_host(**{**self.host, "step_factor": factor * self.host.get("step_factor", 1.0)}).run()

    @property
    def settings(self) -> dict[str, Any]:
        """The settings, as plain values."""
        lora = self.deployment.lora
        found: dict[str, Any] = {
            "traffic": repr(self.traffic), "strategy": self.strategy if self.adapters else "base",
            "precision": self.deployment.precision.name, "tp": plain(self.deployment.parallelism.tp),
            "limits": dict(self.limits.given),
        }  # fmt: skip
        if np.any(self.deployment.parallelism.cp != 1):
            found["cp"] = plain(self.deployment.parallelism.cp)
        if self.fleet.is_fleet:
            found |= {"replicas": self.fleet.replicas, "router": self.fleet.router_name}
        if lora is not None and self.adapters:
            found |= {"rank": plain(lora.rank), "max_loras": self.rules.adapters.max_loras}
        if self.speculation is not None:
            found["speculation"] = plain(self.speculation.to_dict())
        return found

    def step_factors(self, coverage: float) -> tuple[float, float]:
        """The factors between which a step time is expected to lie, for a coverage."""
        table = self.table
        estimate = simulate(
            replace(self.deployment, lora=None), batch=8, input_tokens=round(float(table.input_tokens.mean())),
            output_tokens=round(float(table.output_tokens.mean())),
        )  # fmt: skip
        low, high = estimate.interval("tpot_s", coverage)
        return float(low) / float(estimate.tpot_s), float(high) / float(estimate.tpot_s)

    @property
    def front(self) -> Front:
        """What lies between client and engine."""
        found = front_of(self.deployment)
        return Front(
            request_s=self.host.get("request_s", found.request_s), token_s=self.host.get("token_s", found.token_s),
            reply_s=found.reply_s,
        )  # fmt: skip

    @property
    def strategy(self) -> str:
        """How adapters are served, with its policy: `dynamic`, `merged:greedy`, `mixed`, `unified`."""
        return strategy_of(self.asked, self.deployment)

    @property
    def notes(self) -> tuple[str, ...]:
        """Assumptions and caveats."""
        found = cautions(self.deployment, self.traffic, self.limits, self.rules, self.table)
        merging = merging_notes(self.deployment, self.strategy) if self.adapters else ()
        speculator = self.speculator
        drafting = () if speculator is None else notes_of(self.deployment, speculator.draft)
        return (*self.assumed, *merging, *drafting, *found)

    @property
    def adapters(self) -> int:
        """How many are registered."""
        return len(self.traffic.adapters)

    @property
    def has_slots(self) -> bool:
        """Whether adapters take turns in slots."""
        return bool(self.adapters) and self.strategy in ("dynamic", "mixed", "merged:credits")

    @property
    def classes(self) -> tuple[Limits, ...]:
        """Classes of requests, as a service judges them."""
        return tuple(
            Limits(name=each.name, **{name: value for name in NAMES if (value := getattr(each, name)) is not None})
            for each in self.traffic.classes
        )

    @property
    def rate(self) -> float:
        """Requests per second that are offered. Raises ConfigError where all come at once."""
        rate = self.traffic.request_rate
        if rate is None or rate == inf:
            raise ConfigError("a search for the highest rate needs requests that arrive over time, not all at once")
        return rate

    @property
    def largest_rank(self) -> int:
        """The largest rank of the registered adapters."""
        return largest_rank(self.deployment, self.traffic)

    @property
    def reserved_rank(self) -> int:
        """The rank that a slot reserves."""
        lora = served(self.deployment, self.limits, self.traffic.ranks or ()).lora
        return int(np.max(lora.max_lora_rank)) if lora is not None and self.strategy == "dynamic" else 0

    @property
    def alone_s(self) -> float:
        """Seconds per token of a request that has the server for itself."""
        tokens = self.table.input_tokens + self.table.output_tokens / 2.0
        return self.price.decode(1, round(float(tokens.mean())) if len(tokens) else 1, min(self.adapters, 1))[0]

    def seen(self, service: Service) -> Bottlenecks:
        """What a run of this was limited by; of several replicas, the fullest one."""
        if isinstance(service, FleetService):
            service = service.fullest
        in_turn = bool(self.adapters) and self.strategy.startswith("merged") and self.strategy != "merged:credits"
        return bottlenecks(
            service.table, service.rules, service.log, self.alone_s, in_turn=in_turn, names=self.traffic.adapters
        )

    def checked(self) -> Serving:
        """The same, with what it takes to serve the traffic's adapters. Raises ConfigError where that cannot be."""
        deployment, assumed = with_adapters_of(self.deployment, self.traffic)
        strategy = strategy_of(self.asked, deployment)
        deployment = as_served(deployment, strategy)
        check_ranks(deployment, self.traffic, self.limits)
        check_lengths(deployment, self.table)
        check_strategy(self.speculation, strategy, bool(self.traffic.adapters))
        kept = ("table", "price") if deployment is self.deployment else ("table",)
        return self._but(*kept, deployment=deployment, asked=strategy, assumed=(*self.assumed, *assumed))
