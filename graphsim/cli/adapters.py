"""`--lora`: an adapter from `key=value,…`, or from files or folders, optionally with some values changed."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from graphsim.cli.values import Quantity
from graphsim.errors import ConfigError, choices_text
from graphsim.files.present import expanded, is_present

if TYPE_CHECKING:
    from graphsim.lora.config import LoraConfig

LORA_KEYS = {
    "rank": "rank",
    "targets": "target_modules",
    "exclude": "exclude_modules",
    "strategy": "strategy",
    "variant": "variant",
    "adapters": "active_adapters",
    "share": "adapter_share",
    "shares": "shares",
    "max_loras": "max_loras",
    "max_rank": "max_lora_rank",
    "dtype": "lora_dtype",
    "fully_sharded": "fully_sharded_loras",
    "shared_outer": "shared_outer_factors",
    "tp_scheme": "tp_scheme",
    "mixed_ranks": "mixed_ranks",
    "group_size": "group_size",
    "blocks": "blocks",
    "invocation_tokens": "invocation_tokens",
    "registered": "registered",
    "popularity": "popularity",
}
NONE = "none"
"""The text of `--lora` for the base model."""

LONG_NAMES = {field: key for key, field in LORA_KEYS.items()}
"""Keys of `--lora` by the names of LoraConfig's fields, which are also accepted."""

_TEXTS = ("strategy", "variant", "dtype", "tp_scheme", "popularity")
_FLAGS = ("fully_sharded", "shared_outer")
_KINDS = {"share": "share", "shares": "share", "invocation_tokens": "count"}
"""Kinds of quantity of the keys whose values are not small counts."""


def is_base(text: str | None) -> bool:
    """Whether a `--lora` of this text, or none at all, is the base model."""
    return text is None or text.strip().lower() == NONE


def lora_config(text: str | None, batch: float = 1.0) -> LoraConfig | None:
    """The adapter that `--lora` describes; several folders or files are adapters of one batch.

    text: the option's value; None and `none` are the base model, for which None is returned
    batch: number of requests per step, over which `registered` adapters are distributed by their `popularity`
    Raises ConfigError naming the key and the allowed values.
    """
    if text is None or is_base(text):
        return None
    if not text.strip():
        raise ConfigError("--lora: is empty; write none, key=value,… or the path of a PEFT adapter or a YAML file")
    from graphsim.lora.config import LoraConfig
    from graphsim.lora.matching import Matching
    from graphsim.lora.together import together

    entries = [entry.strip() for entry in text.split(",")]
    paths = list(takewhile(lambda entry: "=" not in entry, entries))
    config = together([_from_path(path) for path in paths], paths) if paths else LoraConfig()
    fields = _fields(entries[len(paths) :])
    if "target_modules" in fields:
        fields["matching"] = Matching.NAMES
    shares = _shares(fields)
    config = replace(config, **fields)
    return config if shares is None else config.among(shares, batch)


def _from_path(text: str) -> LoraConfig:
    from graphsim.lora.config import LoraConfig

    path = expanded(text)
    if is_base(text):
        raise ConfigError(f"--lora: '{text}' is the base model and stands alone; leave it out, or the rest")
    if not is_present(path):
        raise ConfigError(
            f"--lora {text}: no such adapter; write none, key=value,… or the path of a PEFT adapter or a YAML file"
        )
    return LoraConfig.from_yaml(path) if path.suffix.lower() in (".yaml", ".yml") else LoraConfig.from_peft(path)


def _fields(entries: Sequence[str]) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for entry in entries:
        given, _, value = (part.strip() for part in entry.partition("="))
        key = LONG_NAMES.get(given.lower(), given.lower())
        if key not in LORA_KEYS:
            raise ConfigError(f"--lora: '{given}' is not a known key; {choices_text(key, LORA_KEYS)}")
        if LORA_KEYS[key] in fields:
            raise ConfigError(f"--lora: '{given}' is given twice")
        fields[LORA_KEYS[key]] = _value(key, value)
    return fields


def _shares(fields: dict[str, Any]) -> Any:
    """Popularity of the registered adapters, removed from the fields; None if none are registered."""
    registered, kind = fields.pop("registered", None), fields.pop("popularity", None)
    if registered is None:
        if kind is not None:
            raise ConfigError("--lora: 'popularity' needs 'registered', the number of adapters")
        return None
    if "active_adapters" in fields:
        raise ConfigError("--lora: 'adapters' and 'registered' are both given; the second says how many to expect")
    from graphsim.lora.popularity import popularity

    return popularity(kind or "uniform", registered)


def _value(key: str, value: str) -> Any:
    if not value:
        raise ConfigError(f"--lora: '{key}' has no value")
    if key in ("targets", "exclude"):
        return value.lower() if value.lower() == "all-linear" else tuple(value.split("+"))
    if key in ("mixed_ranks", "shares"):
        return tuple(_quantity(key, one) for one in value.split("+"))
    if key in _TEXTS:
        return value
    if key in _FLAGS:
        if value.lower() not in ("true", "false"):
            raise ConfigError(f"--lora: {key} = '{value}' is not allowed; expected true or false")
        return value.lower() == "true"
    return _quantity(key, value)


def _quantity(key: str, value: str) -> float:
    try:
        return Quantity(_KINDS.get(key, "few"))(value)
    except argparse.ArgumentTypeError as error:
        raise ConfigError(f"--lora: {key} = {error}") from None
