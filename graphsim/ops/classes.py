"""Which kinds of operation there are: all of this package's, whoever imports them, and those a user defines."""

from __future__ import annotations

import pkgutil
from functools import cache
from importlib import import_module

from graphsim.ops.base import Op

_PACKAGE = __name__.rpartition(".")[0]


def op_classes() -> dict[str, type[Op]]:
    """Every class of operations by name, base classes included; a user's class never takes the name of the library's.

    `dataclass(slots=True)` makes a second class and leaves the first among `__subclasses__()`, and a notebook's cell
    that runs again makes another: of classes with the same module and qualified name, the last one defined counts.
    """
    _import_all()
    found: list[type[Op]] = [Op]
    for kind in found:
        found += kind.__subclasses__()
    last = {(kind.__module__, kind.__qualname__): kind for kind in found}
    own = {kind.__name__: kind for (module, _), kind in last.items() if module.startswith(f"{_PACKAGE}.")}
    return {kind.__name__: kind for kind in last.values()} | own


@cache
def _import_all() -> None:
    for module in pkgutil.iter_modules(import_module(_PACKAGE).__path__):
        import_module(f"{_PACKAGE}.{module.name}")
