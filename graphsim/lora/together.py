"""Several adapters in one batch as one configuration: identical except for their ranks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace

from graphsim.errors import ConfigError
from graphsim.lora.config import LoraConfig
from graphsim.units import short

_OWN = ("rank", "alpha", "mixed_ranks", "active_adapters", "shares", "tensors", "notes", "left_out")
"""Fields in which adapters of one batch may differ."""


def together(adapters: Sequence[LoraConfig], names: Sequence[str]) -> LoraConfig:
    """The adapters of one batch as one configuration, with `mixed_ranks` if their ranks differ.

    names: of each, for the sentence
    Raises ConfigError for two that differ in anything but rank, such as in their target modules.
    """
    if len(adapters) == 1:
        return adapters[0]
    first = adapters[0]
    for other, name in zip(adapters[1:], names[1:], strict=True):
        for field in fields(LoraConfig):
            here, there = getattr(first, field.name), getattr(other, field.name)
            if field.name not in _OWN and here != there:
                raise ConfigError(
                    f"adapters {names[0]} and {name} differ in {field.name}: {short(here)} and {short(there)}; "
                    "adapters of one batch may differ only in rank"
                )
    ranks = [adapter.rank for adapter in adapters]
    notes = tuple(dict.fromkeys(note for adapter in adapters for note in adapter.notes))
    left_out = tuple(dict.fromkeys(name for adapter in adapters for name in adapter.left_out))
    mixed = () if len(set(ranks)) == 1 else tuple(int(rank) for rank in ranks)
    return replace(
        first, mixed_ranks=mixed, active_adapters=len(adapters), shares=(), tensors=None, notes=notes, left_out=left_out
    )
