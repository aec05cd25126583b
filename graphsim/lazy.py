"""Packages that import a name from its module at the first access."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any


def names_from(
    package: str, homes: Mapping[str, Sequence[str]]
) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """The `__getattr__`, `__dir__` and `__all__` of a package's `__init__` (PEP 562).

    package: its full name
    homes: its modules, each with the names that the package exports from it. For type checkers, the package imports the
        same names under `TYPE_CHECKING`
    """
    modules = {name: module for module, names in homes.items() for name in names}

    def get(name: str) -> Any:
        if name not in modules:
            raise AttributeError(f"module '{package}' has no attribute '{name}'")
        value = getattr(import_module(f"{package}.{modules[name]}"), name)
        setattr(sys.modules[package], name, value)  # found there from now on
        return value

    return get, lambda: sorted({*vars(sys.modules[package]), *modules}), sorted(modules)
