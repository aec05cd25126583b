"""Which kinds of operations there are: those of the modules that are imported, a user's own among them."""

from __future__ import annotations

import sys

from graphsim.ops.base import Op


def defined_ops() -> dict[str, type[Op]]:
    """All defined operations by name.

    `dataclass(slots=True)` makes a second class and leaves the first one among the subclasses: of two with the same
    name, it is the one that its module knows.
    """
    found: dict[str, type[Op]] = {}

    def collect(cls: type[Op]) -> None:
        module = sys.modules.get(cls.__module__)
        nested = "<locals>" in cls.__qualname__
        if nested or cls.__name__ not in found or getattr(module, cls.__qualname__, None) is cls:
            found[cls.__name__] = cls
        for derived in cls.__subclasses__():
            collect(derived)

    collect(Op)
    return found
