"""What a user says about adapters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import numpy as np

from graphsim.errors import ConfigError, choices_text
from graphsim.precision import FORMATS
from graphsim.units import Num

STRATEGIES = ("dynamic", "merge")
MAX_RANK = 65_536


class Matching(Enum):
    """How target names are understood.

    NAMES: the LoRA document's words first, PEFT's rules for all others; PEFT: PEFT's rules only
    """

    NAMES = "names"
    PEFT = "peft"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LoraConfig:
    """An adapter (or many alike) and how it is served.

    target_modules: module types (`attn`, `ffn`), operation names (`qkv`, `out proj`, `query`, …), names and
        suffixes as in PEFT, or one string: `all-linear` or a regular expression for the whole module path
    strategy: `dynamic` applies the factors to every token, `merge` folds them into the weights once
    rank_pattern: other ranks for modules whose path matches, first match first, PEFT's rule
    layers_to_transform: only these layers; layers_pattern: name of the list they are counted in
    alpha: scaling is alpha / rank; it changes no cost
    active_adapters: distinct adapters among the requests of one step
    adapter_share: part of the tokens that have an adapter at all
    max_loras, max_lora_rank: slots and rank an engine reserves (0: as many as active, the largest rank used)
    lora_dtype: format of the factors
    fully_sharded_loras: cut both factors over the tensor-parallel group, at the price of collectives
    """

    enabled: bool = True
    rank: Num = 16
    target_modules: tuple[str, ...] | list[str] | str = ("attn", "ffn")
    strategy: str = "dynamic"
    alpha: float | None = None
    rank_pattern: Mapping[str, Num] = field(default_factory=dict)
    exclude_modules: tuple[str, ...] | list[str] | str = ()
    layers_to_transform: tuple[int, ...] | list[int] | int | None = None
    layers_pattern: tuple[str, ...] | list[str] | str | None = None
    matching: Matching = Matching.NAMES
    active_adapters: Num = 1
    adapter_share: Num = 1.0
    max_loras: Num = 0
    max_lora_rank: Num = 0
    lora_dtype: str = "bf16"
    fully_sharded_loras: bool = False

    def __post_init__(self) -> None:
        """Raise ConfigError naming the field, the value and what is allowed."""
        self._check_flags()
        _check_names("target_modules", self.target_modules)
        if not self.target_modules:
            raise ConfigError("lora.target_modules is empty; name at least one module, or use 'all-linear'")
        _check_names("exclude_modules", self.exclude_modules)
        if not isinstance(self.rank_pattern, Mapping):
            raise ConfigError(f"lora.rank_pattern = {self.rank_pattern!r} is not a mapping of module names to ranks")
        for name, value in [("rank", self.rank), *((f"rank_pattern.{k}", v) for k, v in self.rank_pattern.items())]:
            _check_number(name, value, 0, MAX_RANK, whole=True)
        _check_number("active_adapters", self.active_adapters, 0, 10**6, whole=False)
        _check_number("adapter_share", self.adapter_share, 0, 1, whole=False)
        _check_number("max_loras", self.max_loras, 0, 10**6, whole=True)
        _check_number("max_lora_rank", self.max_lora_rank, 0, MAX_RANK, whole=True)
        object.__setattr__(self, "layers_to_transform", _layers(self.layers_to_transform))

    def _check_flags(self) -> None:
        for name in ("enabled", "fully_sharded_loras"):
            if not isinstance(getattr(self, name), bool):
                raise ConfigError(f"lora.{name} = {getattr(self, name)!r} is not allowed; expected True or False")
        if self.strategy not in STRATEGIES:
            raise ConfigError(
                f"lora.strategy = {self.strategy!r} is not known; {choices_text(self.strategy, STRATEGIES)}"
            )
        if self.lora_dtype not in FORMATS:
            raise ConfigError(
                f"lora.lora_dtype = {self.lora_dtype!r} is not known; {choices_text(self.lora_dtype, FORMATS)}"
            )

    @property
    def largest_rank(self) -> Num:
        """The largest rank that any module may have."""
        largest = self.rank
        for rank in self.rank_pattern.values():
            largest = np.maximum(largest, rank)
        return largest


def _check_names(name: str, value: Any) -> None:
    good = isinstance(value, str) or (
        isinstance(value, list | tuple) and all(isinstance(entry, str) and entry for entry in value)
    )
    if not good:
        raise ConfigError(f"lora.{name} = {value!r} is not allowed; expected a string or a list of names")


def _check_number(name: str, value: Any, least: float, most: float, *, whole: bool) -> None:
    kind = "whole number" if whole else "number"
    message = f"lora.{name} = {value!r} is not allowed; expected a {kind} from {least:g} to {most:g}"
    if isinstance(value, bool | str) or value is None:
        raise ConfigError(message)
    try:
        array = np.asarray(value, dtype=float)
    except (TypeError, ValueError, OverflowError):
        raise ConfigError(message) from None
    good = np.isfinite(array) & (array >= least) & (array <= most)
    if not np.all(good) or (whole and np.any(array != np.floor(array))):
        raise ConfigError(message)


def _layers(value: Any) -> tuple[int, ...] | None:
    entries = () if value is None else (value,) if isinstance(value, int) else value
    if not isinstance(entries, list | tuple) or not all(
        isinstance(i, int) and not isinstance(i, bool) and i >= 0 for i in entries
    ):
        raise ConfigError(f"lora.layers_to_transform = {value!r} is not allowed; expected layer indices from 0 up")
    return None if value is None else tuple(entries)
