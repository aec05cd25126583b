"""The options of a fleet."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import Any

from graphsim.errors import ConfigError
from graphsim.serving.fleet.registry import router_name, router_of
from graphsim.serving.fleet.scaling import Scaling
from graphsim.units import as_number, bounds_text, checked_number, short

MOST_REPLICAS = 10_000
DEFAULT_ROUTER = "least-loaded"


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetOptions:
    """How many identical replicas there are, and how requests are sent to them.

    replicas: number at the start
    router: a name or an object
    view_age_s: seconds between the router's readings of the
        replicas' metrics, 0 if it always knows them; scaling: how replicas are added and removed with the load
    """

    replicas: int = 1
    router: Any = DEFAULT_ROUTER
    view_age_s: float = 0.0
    scaling: Scaling | None = None

    @property
    def is_fleet(self) -> bool:
        """Whether there is, or may be, more than one replica."""
        return self.replicas > 1 or self.scaling is not None

    @property
    def router_name(self) -> str:
        """The router's name for display."""
        return router_name(self.router)


def fleet_options(
    replicas: Any = 1, router: Any = DEFAULT_ROUTER, view_age_s: Any = 0.0, scaling: Any = None
) -> FleetOptions:
    """Checked options. Raise ConfigError for invalid ones."""
    count = checked_number("serve: replicas", replicas, 1, MOST_REPLICAS, one=True)
    router_of(router)
    age = as_number(view_age_s)
    if not isinstance(age, float) or not 0.0 <= age < inf:
        raise ConfigError(f"serve: view_age_s = {short(view_age_s)} is not allowed; expected seconds from 0")
    if scaling is not None and not isinstance(scaling, Scaling):
        raise ConfigError(f"serve: scaling = {short(scaling)} is not a Scaling; expected Scaling(target=…)")
    if scaling is not None and not scaling.least <= count <= scaling.most:
        raise ConfigError(
            f"serve: replicas = {count} at the start is not allowed; expected a number "
            f"{bounds_text(scaling.least, scaling.most)}, the least and most of scaling"
        )
    return FleetOptions(replicas=int(count), router=router, view_age_s=age, scaling=scaling)
