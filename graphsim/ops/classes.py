"""All kinds of operations: those of this package, imported or not, and those a user defines."""

from __future__ import annotations

import pkgutil
from collections.abc import Iterable
from functools import cache
from importlib import import_module

from graphsim.errors import GraphError
from graphsim.ops.base import Op

_PACKAGE = __name__.rpartition(".")[0]


def op_classes() -> dict[str, type[Op]]:
    """Every class of operations by name, base classes included; a user's class never takes the name of the library's.

    `dataclass(slots=True)` makes a second class and leaves the first among `__subclasses__()`, and a notebook's cell
    that runs again makes another: of classes with the same module and qualified name, the last one defined counts.
    Raises GraphError where two classes of the library have one name.
    """
    _import_all()
    found: list[type[Op]] = [Op]
    for kind in found:
        found += kind.__subclasses__()
    last = {(kind.__module__, kind.__qualname__): kind for kind in found}
    own = [kind for (module, _), kind in last.items() if module.startswith(f"{_PACKAGE}.")]
    return {kind.__name__: kind for kind in last.values()} | _by_name(own)


def _by_name(kinds: Iterable[type[Op]]) -> dict[str, type[Op]]:
    found: dict[str, type[Op]] = {}
    for kind in kinds:
        other = found.setdefault(kind.__name__, kind)
        if other is not kind:
            both = " and ".join(sorted((other.__module__, kind.__module__)))
            raise GraphError(f"two classes of operations are named '{kind.__name__}', in {both}; rename one of them")
    return found


@cache
def _import_all() -> None:
    for module in pkgutil.walk_packages(import_module(_PACKAGE).__path__, f"{_PACKAGE}."):
        import_module(module.name)
