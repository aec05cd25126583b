"""The same server under other circumstances: faster traffic, other settings, other adapters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from graphsim.deployment.deployment import DEFAULT_ENGINE, Deployment
from graphsim.lora.config import LoraConfig
from graphsim.serving.adjusted import checked_constants
from graphsim.serving.engine_limits import EngineLimits
from graphsim.serving.fleet.options import FleetOptions, fleet_options
from graphsim.traffic.traffic import Traffic

if TYPE_CHECKING:
    from typing import Self

UNPRICED = frozenset({"max_cpu_loras", "skips", "loads", "eviction", "weights", "prefetch", "pinned", "drain_after_s"})
"""Settings that change no step's price."""


class Variations:
    """What a server and its traffic would be, except for one thing. Each raises ConfigError for what is not allowed."""

    deployment: Deployment
    traffic: Traffic
    limits: EngineLimits
    fleet: FleetOptions
    host: Mapping[str, float]

    def checked(self) -> Self:
        """The same, found to be possible."""
        raise NotImplementedError

    def _with(self, **changes: Any) -> Self:
        same: Any = self
        return cast("Self", replace(same, **changes))

    def _but(self, *kept: str, **changes: Any) -> Self:
        """A copy with other fields; computed values that do not change are kept."""
        found = self._with(**changes)
        found.__dict__.update({name: self.__dict__[name] for name in kept if name in self.__dict__})
        return found

    def faster(self, factor: float) -> Self:
        """The same requests, faster by a factor."""
        return self._but("rules", "price", traffic=self.traffic.scaled(factor))

    def with_concurrency(self, clients: int) -> Self:
        """The same with another number of requests in flight."""
        return self.faster(clients / (self.traffic.concurrency or 1))

    def with_adapters(self, count: int) -> Self:
        """The same with another number of registered adapters."""
        engine = self.deployment.under(DEFAULT_ENGINE).engine
        alike = self.traffic.ranks is None and not (engine and engine.host.mapping_slot_s)
        kept = ("price",) if alike else ()
        return self._but(*kept, traffic=self.traffic.with_adapters(count)).checked()

    def first(self, requests: int) -> Self:
        """Only the first requests, up to this number."""
        return self._but("rules", "price", most=requests)

    def with_strategy(self, asked: str) -> Self:
        """Adapters served in another way. Raises ConfigError for a name that is none."""
        return self._with(asked=asked).checked()

    def varied(self, name: str, value: Any) -> Self:
        """The same with another strategy, router, number of replicas, or setting of the engine by any of its names."""
        if name == "strategy":
            return self.with_strategy(value)
        if name in ("router", "replicas", "view_age_s"):
            return self.with_fleet(**{name: value})
        return self.with_slots(value) if name == "max_loras" else self.with_limits(**{name: value})

    def with_limits(self, **changes: Any) -> Self:
        """Other settings of the engine."""
        kept = ("price",) if changes.keys() <= UNPRICED else ()
        return self._but(*kept, limits=self.limits.but(**changes)).checked()

    def with_fleet(self, **changes: Any) -> Self:
        """Other replicas, or another router. Raises ConfigError for what is no fleet."""
        fleet = self.fleet
        now = {name: getattr(fleet, name) for name in ("replicas", "router", "view_age_s", "scaling")}
        return self._but("table", "rules", "price", fleet=fleet_options(**{**now, **changes}))

    def with_lora(self, **changes: Any) -> Self:
        """Another LoraConfig; settings of the engine give way to it."""
        lora = replace(self.deployment.lora or LoraConfig(), **changes)
        limits = self.limits.but(**dict.fromkeys(changes)) if changes.keys() & {*self.limits} else self.limits
        return self._with(deployment=replace(self.deployment, lora=lora), limits=limits).checked()

    def with_host(self, **constants: float) -> Self:
        """Other constants of the host; its prices are shared, where this has them already."""
        return self._but("table", "rules", "price", host=checked_constants(constants))

    def with_deployment(self, **changes: Any) -> Self:
        """Another deployment."""
        return self._with(deployment=replace(self.deployment, **changes)).checked()

    def with_slots(self, slots: int) -> Self:
        """The same with another number of slots, and at least as many adapters in host memory."""
        in_host = self.limits.given.get("max_cpu_loras")
        limits = self.limits if in_host is None or in_host >= slots else self.limits.but(max_cpu_loras=slots)
        return self._with(limits=limits).with_lora(max_loras=slots)
