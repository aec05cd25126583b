"""Common parts of the readers of all drafts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from graphsim.files.reading import Fields
from graphsim.models.config import ModelConfig
from graphsim.models.huggingface.common import Reader, unused

SPECULATORS = (
    "speculators_model_type", "speculators_config", "speculators_version", "transformer_layer_config",
    "transformer_layer_architecture", "embed_requires_grad", "has_no_defaults_at_init", "base_model_ep_plan",
)  # fmt: skip
"""Keys of the speculators library that describe how a draft was trained or is to be served."""


def _whole(data: Mapping[str, Any]) -> Mapping[str, Any]:
    return data


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """One kind of draft.

    kind: `model_type` whose defaults fill missing keys; the config's own if empty
    part: returns the part of the config that is read: all, or a nested mapping merged with the keys next to it
    """

    reader: Reader
    kind: str = ""
    part: Callable[[Mapping[str, Any]], Mapping[str, Any]] = _whole


def nested(key: str) -> Callable[[Mapping[str, Any]], Mapping[str, Any]]:
    """A function that merges the mapping under `key` with the keys next to it, which take precedence."""

    def part(data: Mapping[str, Any]) -> Mapping[str, Any]:
        inner = data.get(key)
        if not isinstance(inner, Mapping):
            return data
        beside = {name: value for name, value in data.items() if value is not None}
        own = {name: inner[name] for name in ("model_type", "architectures") if name in inner}
        return {**inner, **beside, **own}

    return part


def from_speculators(fields: Fields) -> bool:
    """Whether the config is of the speculators library; notes a problem if its layers are not Llama's."""
    if "speculators_model_type" not in fields:
        return False
    fields.text("model_type", "llama", choices=("llama",))
    return True


def noted(config: ModelConfig, fields: Fields, kind: str, borrowed: str, step: str) -> ModelConfig:
    """The draft with notes on what it borrows from its target, and on what one step is."""
    unused(fields, *SPECULATORS)
    notes = (f"{kind}, a draft: {borrowed} and not counted", f"one step of it {step}")
    return replace(config, notes=(*config.notes, *notes))


ONE_TOKEN = "drafts one token behind the target's states of all before it; the target's own step is not part of it"
"""Note on a step of most drafts."""
