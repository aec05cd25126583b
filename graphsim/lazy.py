"""Packages that import a name from the module it comes from when somebody first asks for it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any


def names_from(
    package: str, homes: Mapping[str, Sequence[str]]
) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """What a package's `__init__` takes as its `__getattr__`, `__dir__` and `__all__` (PEP 562).

    package: its full name
    homes: its modules, each with the names that the package offers from it. Readers of types, which import nothing,
        find the same names imported under `TYPE_CHECKING`
    """
    modules = {name: module for module, names in homes.items() for name in names}

    def get(name: str) -> Any:
        if name not in modules:
            raise AttributeError(f"module '{package}' has no attribute '{name}'")
        value = getattr(import_module(f"{package}.{modules[name]}"), name)
        setattr(sys.modules[package], name, value)  # found there from now on
        return value

    return get, lambda: sorted({*vars(sys.modules[package]), *modules}), sorted(modules)
