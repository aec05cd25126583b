"""Routers by name."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

from graphsim.errors import ConfigError, choices_text
from graphsim.serving.fleet.adapter_routers import AdapterAffinity, Rendezvous, StaticMap
from graphsim.serving.fleet.placement import Placed
from graphsim.serving.fleet.router import LeastKV, LeastLoaded, LeastOpen, RandomChoice, RoundRobin, Router
from graphsim.serving.fleet.scores import Dynamo, PrefixAware, Weighted
from graphsim.units import short

ROUTERS: dict[str, Callable[[], Router]] = {
    "least-loaded": LeastLoaded, "round-robin": RoundRobin, "random": RandomChoice, "least-open": LeastOpen,
    "least-kv": LeastKV, "adapter-affinity": AdapterAffinity, "rendezvous": Rendezvous, "static-map": StaticMap,
    "placed": Placed, "prefix-aware": PrefixAware, "llm-d": Weighted, "dynamo": Dynamo,
}  # fmt: skip
"""The router of each name, with default settings; the classes take arguments."""

SPELLINGS = {"consistent-hash": "rendezvous", "weighted": "llm-d", "affinity": "adapter-affinity"}


def router_of(router: Any) -> Router:
    """An unused router, by its name or as a copy of an object with `route(request, views)`.

    Raises ConfigError for a name that is not known, or an object that is not a router.
    """
    if isinstance(router, str):
        name = router.strip().lower().replace("_", "-")
        make = ROUTERS.get(SPELLINGS.get(name, name))
        if make is None:
            raise ConfigError(f"serve: router = {short(router)} is not known; {choices_text(name, ROUTERS)}")
        return make()
    if isinstance(router, type) or not callable(getattr(router, "route", None)):
        raise ConfigError(
            f"serve: router = {short(router)} is not a router; expected a name ({', '.join(ROUTERS)}) or "
            f"an object with "
            "route(request, views)"
        )
    return deepcopy(router)  # type: ignore[no-any-return]


def router_name(router: Any) -> str:
    """A router's name for display."""
    if isinstance(router, str):
        name = router.strip().lower().replace("_", "-")
        return SPELLINGS.get(name, name)
    return type(router).__name__
