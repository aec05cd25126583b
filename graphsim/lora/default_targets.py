"""The targets that PEFT uses if an adapter's file names none, by the `model_type` of the model's config.json."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from graphsim.errors import ConfigError
from graphsim.files.reading import load_mapping
from graphsim.lora.config import LoraConfig
from graphsim.lora.matching import Matching

CONV1D = ("gpt2", "openai-gpt")
"""Models whose linears are `Conv1D` in transformers, with transposed weights, which not every method supports."""


@cache
def default_targets(method: str) -> Mapping[str, tuple[str, ...] | str]:
    """Targets by model type, of a `peft_type` or of one of its fields, such as `IA3.feedforward_modules`."""
    tables = load_mapping(Path(__file__).with_name("default_targets.yaml"))["methods"]
    own = dict(tables.get(method, {}))
    base = own.pop("base", None)
    found: dict[str, Any] = dict(tables[base]) if base else {}
    return {kind: tuple(names) if isinstance(names, list) else names for kind, names in (found | own).items()}


def with_defaults(lora: LoraConfig, model_type: str, *, has_stacks: bool) -> LoraConfig:
    """The adapter with PEFT's default targets, if its file names none.

    has_stacks: whether the model has experts in stacks, for which PEFT 0.21 has no default targets for LoRA
    Raises ConfigError for a model type that PEFT has no default for.
    """
    kind, options = lora.kind, dict(lora.options)
    if lora.target_modules is None:
        if has_stacks and kind.peft_type == "LORA":
            raise ConfigError(
                "lora.target_modules = None is not allowed for a model with stacks of experts (PEFT 0.21, "
                "utils/transformers_weight_conversion.py); expected names, an expression or all-linear"
            )
        lora = replace(lora, target_modules=_looked_up("target_modules", kind.peft_type, model_type))
    if lora.matching is Matching.PEFT:
        for option in kind.options:
            if option.names and options[option.name] is None:
                field = f"options.{option.name}"
                options[option.name] = _looked_up(field, f"{kind.peft_type}.{option.name}", model_type)
                lora = replace(lora, options=options)
    return lora


def _looked_up(field: str, method: str, model_type: str) -> tuple[str, ...] | str:
    table = default_targets(method)
    if model_type in table:
        return table[model_type]
    known = f"PEFT 0.21 has no default for model_type '{model_type}'" if model_type else "the model has no model_type"
    named = ", ".join(sorted(table))
    raise ConfigError(f"lora.{field} = None is not allowed, since {known}; expected names, or one of {named}")
