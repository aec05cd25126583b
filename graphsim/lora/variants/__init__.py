"""Variants of LoRA, one file each, which defines `VARIANT`."""

from __future__ import annotations

import pkgutil
from collections.abc import Mapping
from functools import lru_cache
from importlib import import_module
from types import MappingProxyType

from graphsim.errors import ConfigError
from graphsim.lora.variant import Variant


def known() -> Mapping[str, Variant]:
    """All variants by name. Raises ConfigError for a file of the package that defines none."""
    return _found(tuple(__path__))


@lru_cache(maxsize=8)
def _found(folders: tuple[str, ...]) -> Mapping[str, Variant]:
    found = {}
    for entry in pkgutil.iter_modules(folders):
        variant = getattr(import_module(f"{__name__}.{entry.name}"), "VARIANT", None)
        if not isinstance(variant, Variant):
            raise ConfigError(
                f"graphsim/lora/variants: '{entry.name}' defines no variant; expected VARIANT = Variant(…)"
            )
        found[variant.name] = variant
    return MappingProxyType(found)
