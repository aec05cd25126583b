"""Whole adapters as a choice of a sweep: `lora=`, whose fields other choices may override one by one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from graphsim.deployment.scenarios import scenarios_in
from graphsim.errors import ConfigError
from graphsim.lora.config import LoraConfig
from graphsim.lora.matching import Matching
from graphsim.sweeps.axis import Axis
from graphsim.units import short

LORA, BASE = "lora", "base"
"""The choice; and the strategy that means no adapter."""

FIELDS = {
    "strategy": "strategy", "targets": "target_modules", "rank": "rank", "active_adapters": "active_adapters",
    "max_loras": "max_loras", "max_lora_rank": "max_lora_rank",
}  # fmt: skip
"""Choices that are fields of an adapter, with the fields' names."""


def adapter_axis(given: Any, choices: Mapping[str, Any], usual: Mapping[str, Any]) -> Axis:
    """The requested adapters, each with those of its fields that are not separate choices.

    given: a LoraConfig, or several, None for no adapter
    usual: values of the fields in the table without an adapter
    Raises ConfigError for anything else.
    """
    adapters = list(given) if isinstance(given, list | tuple) else [given]
    for adapter in adapters:
        if adapter is not None and not isinstance(adapter, LoraConfig):
            raise ConfigError(f"sweep: lora = {short(adapter)} is not a LoraConfig, a list of them or None")
        if scenarios_in(adapter) is not None:
            raise ConfigError("sweep: an adapter holds arrays of scenarios; give a list of adapters")
        if adapter is not None and adapter.mixed_ranks and "rank" in choices:
            raise ConfigError("sweep: rank and an adapter's mixed_ranks exclude each other; leave one out")
    if not adapters:
        raise ConfigError("sweep: lora is empty; give at least one adapter")
    kept = [adapter if adapter is not None and adapter.enabled else None for adapter in adapters]
    own = {name: tuple(_field(one, name, usual) for one in kept) for name in FIELDS if name not in choices}
    return Axis({LORA: tuple(kept), **own})


def _field(adapter: LoraConfig | None, name: str, usual: Mapping[str, Any]) -> Any:
    if adapter is not None:
        return getattr(adapter, FIELDS[name])
    return BASE if name == "strategy" else usual[name]


def adapter_of(chosen: Mapping[str, Any]) -> LoraConfig | None:
    """The adapter of a scenario with all its choices; None for the base model."""
    if chosen["strategy"] == BASE or (LORA in chosen and chosen[LORA] is None):
        return None
    fields: dict[str, Any] = {field: chosen[name] for name, field in FIELDS.items()}
    if LORA not in chosen:
        return LoraConfig(**fields)
    given: LoraConfig = chosen[LORA]
    changed = {field: value for field, value in fields.items() if value != getattr(given, field)}
    if "target_modules" in changed:
        changed["matching"] = Matching.NAMES
    return replace(given, **changed)


def label_of(adapter: LoraConfig | None) -> str:
    """An adapter's label in a table."""
    if adapter is None:
        return "none"
    targets = adapter.target_modules
    named = targets if isinstance(targets, str) else "+".join(targets or ())
    return f"{adapter.variant} {named}".strip()
