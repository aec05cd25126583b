"""The fleets among which one is looked for: the product of the choices, each of them a server and its router."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from graphsim.errors import ConfigError, choices_text
from graphsim.serving.engine_flags import all_names
from graphsim.serving.fleet.options import DEFAULT_ROUTER, MOST_REPLICAS
from graphsim.serving.fleet.registry import router_name, router_of
from graphsim.units import short

DEGREES = ("tp", "pp", "ep")
DESCRIBED = ("engine", "precision", "cost")
SERVED = ("strategy", "router", "view_age_s")
SPELLINGS = {"slots": "max_loras", "gpu": "hardware", "device": "hardware", "degrees": "tp"}
NOT_YET = ("prefill", "prefill_replicas", "prefill_hardware", "speculation")
DEFAULT_REPLICAS = 64
"""Replicas that are tried at most where nobody says how many there may be."""


@dataclass(frozen=True, slots=True)
class Choices:
    """names: of what differs, in order; rows: the choices; replicas: how many there may be, from least to most."""

    names: tuple[str, ...]
    rows: tuple[dict[str, Any], ...]
    replicas: tuple[int, ...]

    @property
    def hardware(self) -> list[Any]:
        """Devices asked for, each once."""
        found: list[Any] = []
        for row in self.rows:
            if row["hardware"] not in found:
                found.append(row["hardware"])
        return found


def choices_of(choices: Any) -> Choices:
    """Read what may be chosen. Raises ConfigError naming what is not known, missing or no list of values."""
    if not isinstance(choices, Mapping) or not choices:
        raise ConfigError(
            f"size_fleet: choices = {short(choices)} is not allowed; expected a mapping such as "
            "{'hardware': ['h100-sxm', 'l40s'], 'tp': [1, 2], 'max_loras': [8, 16], 'router': ['least-loaded']}"
        )
    axes: dict[str, list[Any]] = {}
    for given, values in choices.items():
        name = SPELLINGS.get(str(given), str(given))
        if name in NOT_YET:
            raise ConfigError(
                f"size_fleet: choices.{given} is not simulated here; fleets of whole servers are compared"
            )
        if name not in ("hardware", "replicas", *DEGREES, *DESCRIBED, *SERVED) and name not in all_names():
            known = ("hardware", "replicas", *DEGREES, *DESCRIBED, *SERVED, *all_names())
            raise ConfigError(f"size_fleet: choices.{given} is not known; {choices_text(name, known)}")
        if name in axes:
            raise ConfigError(f"size_fleet: choices.{given} and another name for {name} are both given; leave one out")
        axes[name] = _listed(str(given), values)
    if "hardware" not in axes:
        raise ConfigError("size_fleet: choices.hardware is missing; expected the devices to choose from")
    replicas = _replicas(axes.pop("replicas", None))
    axes.setdefault("router", [DEFAULT_ROUTER])
    for router in axes["router"]:
        router_of(router)
    return Choices(tuple(axes), tuple(_rows(axes)), replicas)


def _listed(name: str, values: Any) -> list[Any]:
    if isinstance(values, range):
        values = list(values)
    found = list(values) if isinstance(values, list | tuple) else [values]
    if not found:
        raise ConfigError(f"size_fleet: choices.{name} is an empty list; expected at least one value")
    for i, value in enumerate(found):
        if any(value is other or (type(value) is type(other) and value == other) for other in found[:i]):
            raise ConfigError(f"size_fleet: choices.{name} = {short(value)} is named twice; expected different values")
    return found


def _replicas(given: list[Any] | None) -> tuple[int, ...]:
    if given is None:
        return tuple(range(1, DEFAULT_REPLICAS + 1))
    for value in given:
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= MOST_REPLICAS:
            raise ConfigError(
                f"size_fleet: choices.replicas = {short(value)} is not allowed; expected whole numbers from 1 to "
                f"{MOST_REPLICAS:,}"
            )
    return tuple(sorted(given))


def _rows(axes: Mapping[str, Sequence[Any]]) -> Iterator[dict[str, Any]]:
    for values in product(*axes.values()):
        yield dict(zip(axes, values, strict=True))


def shown(name: str, value: Any) -> Any:
    """A value as a table holds it."""
    if name == "router":
        return router_name(value)
    return value if isinstance(value, str | int | float | bool) or value is None else getattr(value, "name", str(value))
