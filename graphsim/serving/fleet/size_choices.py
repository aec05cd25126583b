"""The candidate fleets: the product of the choices, each a server and its router."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from graphsim.errors import ConfigError, choices_text
from graphsim.serving.engine_flags import all_names
from graphsim.serving.fleet.options import DEFAULT_ROUTER, MOST_REPLICAS
from graphsim.serving.fleet.registry import router_name, router_of
from graphsim.speculation.speculation import checked_speculation
from graphsim.units import bounds_text, checked_number, entries_of, short

DEGREES = ("tp", "pp", "ep", "cp")
DESCRIBED = ("engine", "precision", "cost")
SERVED = ("strategy", "router", "view_age_s", "speculation")
PREFILL = ("prefill_replicas", "prefill_hardware", "prefill_tp")
"""Choices of prefill workers: number (0: each replica does both), device and degree."""
NAMES = ("hardware", "replicas", *DEGREES, *DESCRIBED, *SERVED, *PREFILL)
SPELLINGS = {"slots": "max_loras", "gpu": "hardware", "device": "hardware", "degrees": "tp"}
DEFAULT_REPLICAS = 64
"""Default limit on the number of replicas."""


@dataclass(frozen=True, slots=True)
class Choices:
    """names: of the varied settings, in order; rows: the choices; replicas: bounds of their number."""

    names: tuple[str, ...]
    rows: tuple[dict[str, Any], ...]
    replicas: tuple[int, ...]

    @property
    def hardware(self) -> list[Any]:
        """Devices asked for, each once."""
        found: list[Any] = []
        for row in self.rows:
            for device in (row["hardware"], row.get("prefill_hardware")):
                if device is not None and device not in found:
                    found.append(device)
        return found


def choices_of(choices: Any) -> Choices:
    """The candidate choices. Raises ConfigError naming an unknown or missing choice, or one that is not a list of
    values.
    """
    if not isinstance(choices, Mapping) or not choices:
        raise ConfigError(
            f"size_fleet: choices = {short(choices)} is not allowed; expected a mapping such as "
            "{'hardware': ['h100-sxm', 'l40s'], 'tp': [1, 2], 'max_loras': [8, 16], 'router': ['least-loaded']}"
        )
    axes: dict[str, list[Any]] = {}
    for given, values in choices.items():
        name = SPELLINGS.get(str(given), str(given))
        if name not in (*NAMES, *all_names()):
            known = (*NAMES, *all_names())
            raise ConfigError(f"size_fleet: choices.{given} is not known; {choices_text(name, known)}")
        if name in axes:
            raise ConfigError(f"size_fleet: choices.{given} and another name for {name} are both given; leave one out")
        axes[name] = _listed(str(given), values)
    if "hardware" not in axes:
        raise ConfigError("size_fleet: choices.hardware is missing; expected the devices to choose from")
    _check_prefill(axes)
    for value in axes.get("speculation", ()):
        checked_speculation(value)
    replicas = _replicas(axes.pop("replicas", None))
    axes.setdefault("router", [DEFAULT_ROUTER])
    for router in axes["router"]:
        router_of(router)
    return Choices(tuple(axes), tuple(_rows(axes)), replicas)


def _listed(name: str, values: Any) -> list[Any]:
    found = entries_of(values)
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
                f"size_fleet: choices.replicas = {short(value)} is not allowed; expected whole numbers "
                f"{bounds_text(1, MOST_REPLICAS)}"
            )
    return tuple(sorted(given))


def _check_prefill(axes: Mapping[str, Sequence[Any]]) -> None:
    for name in PREFILL[1:]:
        if name in axes and "prefill_replicas" not in axes:
            raise ConfigError(
                f"size_fleet: choices.{name} needs choices.prefill_replicas: how many workers compute prompts"
            )
    for name, least in (("prefill_replicas", 0), ("prefill_tp", 1)):
        for value in axes.get(name, ()):
            checked_number(f"size_fleet: choices.{name}", value, least, MOST_REPLICAS, one=True)


def _rows(axes: Mapping[str, Sequence[Any]]) -> Iterator[dict[str, Any]]:
    """Each choice once: without prefill workers their device and degree do not matter."""
    seen: list[dict[str, Any]] = []
    for values in product(*axes.values()):
        row = dict(zip(axes, values, strict=True))
        if row.get("prefill_replicas") == 0 and len(axes.keys() & {*PREFILL}) > 1:
            row |= dict.fromkeys(axes.keys() & {*PREFILL[1:]})
            if row in seen:
                continue
            seen.append(row)
        yield row


def shown(name: str, value: Any) -> Any:
    """A value in the form of a table cell."""
    if name == "router":
        return router_name(value)
    if name == "speculation":
        return "none" if value is None else value.label
    return value if isinstance(value, str | int | float | bool) or value is None else getattr(value, "name", str(value))
