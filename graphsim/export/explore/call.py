"""Text of the Python call that reproduces a page's figures, in parts; the values of the controls go between them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from graphsim.deployment.deployment import Deployment
from graphsim.deployment.parallelism import Parallelism
from graphsim.lora.config import LoraConfig

_MOVED = ("rank", "active_adapters", "max_loras", "adapter_share", "shares", "strategy")
_FILES = ("tensors", "notes", "left_out", "matching", "enabled")
"""Fields that are filled in when adapter files are read."""


def call_of(
    asked: Deployment, adapter: LoraConfig, model: str, devices: Mapping[str, str], engines: Mapping[str, str]
) -> dict[str, Any]:
    """Texts of the call's arguments.

    model: the model as Python text
    devices: each device by name, as Python text
    engines: each engine by name, as Python text
    """
    kept = [] if asked.precision is asked.model.precision else [("precision", asked.precision.name)]
    kept += [("cost", asked.cost)] if isinstance(asked.cost, str) else []
    return {
        "model": model,
        "devices": dict(devices),
        "engines": dict(engines),
        "parallelism": _differing(asked.parallelism, Parallelism(), ("tp", "dp", "sp")),
        "sequence_parallel": bool(asked.parallelism.sp > 1),
        "lora": _differing(adapter, LoraConfig(), (*_MOVED, *_FILES)),
        "shares": f", shares={adapter.shares!r}" if adapter.shares else "",
        "kept": [f"{name}={value!r}" for name, value in kept],
    }


def _differing(thing: Any, usual: Any, without: tuple[str, ...]) -> str:
    """Fields that differ from their defaults, as text of arguments, each preceded by a comma."""
    found = [(field.name, getattr(thing, field.name)) for field in fields(thing) if field.name not in without]
    return "".join(f", {name}={_text(value)}" for name, value in found if value != getattr(usual, name))


def _text(value: Any) -> str:
    return repr(dict(value)) if isinstance(value, Mapping) else repr(value)
