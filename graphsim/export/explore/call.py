"""The call of Python that gives what a page shows, in the parts between which its controls stand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from graphsim.deployment.deployment import Deployment
from graphsim.deployment.parallelism import Parallelism
from graphsim.lora.config import LoraConfig

_MOVED = ("rank", "active_adapters", "max_loras", "adapter_share", "shares", "strategy")
_FILES = ("tensors", "notes", "left_out", "matching", "enabled")
"""Fields that a reader of files fills in."""


def call_of(
    asked: Deployment, adapter: LoraConfig, model: str, devices: Mapping[str, str], engines: Mapping[str, str]
) -> dict[str, Any]:
    """Texts of arguments. model, devices, engines: how the model, and each of these by name, is written in Python."""
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
    """The fields that are not at their defaults, as arguments, each with a comma in front."""
    found = [(field.name, getattr(thing, field.name)) for field in fields(thing) if field.name not in without]
    return "".join(f", {name}={_text(value)}" for name, value in found if value != getattr(usual, name))


def _text(value: Any) -> str:
    return repr(dict(value)) if isinstance(value, Mapping) else repr(value)
